"""The one design: only one file names colors, and every page has that file."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path

import pytest

import cloudft
from cloudft.evaluate.report.pages import render_template
from cloudft.web.design import read_stylesheet

ROOT = Path(str(files(cloudft)))
SOURCES = sorted(
    str(path.relative_to(ROOT))
    for kind in ("css", "html", "js")
    for path in ROOT.rglob(f"*.{kind}")
    if path.name != "base.css"
)
COLOR = re.compile(
    r"#(?:[0-9a-f]{3}|[0-9a-f]{6})\b(?![^<>]*&)|\b(?:rgb|hsl|oklch)a?\((?!var\(--mark\))", re.I
)
FONT = re.compile(r"font-family|sans-serif|monospace", re.I)


def relative_luminance(color: str) -> float:
    """Return the relative luminance of `#rgb` or `#rrggbb` (WCAG 2.2)."""
    digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
    linear = [
        c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4
        for c in (int(digits[n : n + 2], 16) for n in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", SOURCES)
def test_only_the_design_names_colors_and_fonts(name: str) -> None:
    text = (ROOT / name).read_text()
    assert [line for line in text.splitlines() if COLOR.search(line) or FONT.search(line)] == []


def test_a_color_is_found_however_it_is_written() -> None:
    for text in ("color: #fff", "fill:#1F57A3;", "rgb(1, 2, 3)", "rgba(0,0,0,.5)", "hsl(1 2% 3%)"):
        assert COLOR.search(text), text
    for text in ("rgba(var(--mark), .1)", "#page", "&#39;", 'href="#x"', "#bar button"):
        assert not COLOR.search(text), text


def test_the_style_refers_to_no_other_file_and_each_variable_is_defined() -> None:
    style = read_stylesheet()
    assert "url(" not in style and "@import" not in style
    defined = set(re.findall(r"(--[\w-]+):", style))
    for name in ("", *SOURCES):
        text = (ROOT / name).read_text() if name else style
        own = set(re.findall(r"(--[\w-]+):", text))
        assert set(re.findall(r"var\((--[\w-]+)", text)) <= defined | own, name


def test_curves_and_edges_of_controls_have_the_contrast_of_wcag_in_both_schemes() -> None:
    light: dict[str, str] = {}
    dark: dict[str, str] = {}
    for media, block in re.findall(
        r"(@media[^{]*\{ )?:root \{(.*?)\}", read_stylesheet(), re.DOTALL
    ):
        found = re.findall(r"--([\w-]+): (#[0-9a-f]+)", block)
        (dark if "dark" in media else light).update(found)
    assert set(light) == set(dark)
    for colors in (light, dark):
        for name in ("edge", *(f"curve-{n}" for n in range(1, 9))):
            pair = sorted(relative_luminance(colors[key]) for key in (name, "page"))
            assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 3, name


def test_a_written_page_contains_the_style() -> None:
    page = render_template("base.html", {})
    assert f"<style>{read_stylesheet()}</style>" in page
