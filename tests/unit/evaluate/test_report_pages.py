"""Pages are complete and safe whatever the records say: structure, escaping, sizes, contrast."""

from __future__ import annotations

import dataclasses
import itertools
import re
from base64 import b64encode
from collections import Counter
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sample_pages
from hypothesis import given
from hypothesis import strategies as st

from cloudft.cli.job_page import metric_columns, metric_rows
from cloudft.evaluate.report.chart_axes import TICKS, choose_range, choose_ticks
from cloudft.evaluate.report.histogram_svg import draw_histogram
from cloudft.evaluate.report.job_page import render_job_page
from cloudft.evaluate.report.loss_curve_svg import draw_loss_curve
from cloudft.evaluate.report.shared_text import find_shared_text
from cloudft.web.design import read_stylesheet

STYLE = read_stylesheet()
VOID = {"meta", "link", "br", "line", "rect", "circle", "path", "polyline"}
PAGES = ("report", "compare", "data")


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return a page of each kind, by name, with everything that makes a page large."""
    return sample_pages.render_pages(tmp_path_factory.mktemp("pages"))


class Page(HTMLParser):
    """The elements of a page: attributes by name, headings, texts, and what is nested wrongly."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.visible: list[str] = []
        self.faults: list[str] = []
        self.feed(content)
        self.close()
        self.faults += [f"<{tag}> is open at the end" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes another element")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if "details" not in self.open or "summary" in self.open:
            self.visible.append(data)

    def count(self, *tags: str) -> int:
        return sum(tag in tags for tag, _ in self.elements)


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_well_formed_loads_nothing_and_can_be_read_by_a_screen_reader(
    pages: dict[str, str], name: str
) -> None:
    page = Page(pages[name])
    assert page.faults == []
    assert not page.count("script", "img", "b", "iframe", "form", "base")
    ids = Counter(attrs["id"] for _, attrs in page.elements if "id" in attrs)
    assert set(ids.values()) <= {1}
    for tag, attrs in page.elements:
        assert "style" not in attrs and not [name for name in attrs if name.startswith("on")]
        assert attrs.get("href", "data:,") == "data:," and "src" not in attrs
        if tag == "th":
            assert attrs["scope"] in ("row", "col")
        if tag == "svg" and "aria-hidden" not in attrs:
            assert attrs["role"] == "img"
            assert set((attrs["aria-labelledby"] or "").split()) <= ids.keys()
    drawings = sum(tag == "svg" and "aria-hidden" not in attrs for tag, attrs in page.elements)
    assert page.count("title") - 1 == page.count("desc") == drawings
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels.count(1) == 1 and levels[0] == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", PAGES)
def test_the_policy_of_a_page_allows_its_own_style_and_no_other(
    pages: dict[str, str], name: str
) -> None:
    [style] = re.findall(r"<style>(.*?)</style>", pages[name], re.DOTALL)
    assert style == STYLE and "prefers-color-scheme: dark" in style
    digest = b64encode(sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'; img-src data:\"" in pages[name]
    assert "unsafe-inline" not in pages[name]


def test_on_paper_no_heading_is_alone_at_the_foot_and_no_row_is_split() -> None:
    paper = STYLE.partition("@media print")[2]
    selectors = {
        rule.strip(): {name.strip() for name in names.split(",")}
        for names, rule in re.findall(r"([^{}]+)\{([^{}]+)\}", paper)
    }
    assert {"h1", "h2", "h3", "caption", "thead", "summary"} <= selectors["break-after: avoid;"]
    assert {"tr", "figure", ".records li"} <= selectors["break-inside: avoid;"]


@pytest.mark.parametrize("name", ["report", "compare"])
def test_what_prompts_repeat_is_shown_once_and_nothing_is_lost(
    pages: dict[str, str], name: str
) -> None:
    page = Page(pages[name])
    text = "".join(page.texts)
    assert text.count("Read the request to its end") == 1
    assert sample_pages.MARKUP in text and sample_pages.ARABIC in text
    whole = re.sub(r" … [\d,]+ characters… ", " ", text)
    assert re.sub(r"\s+", " ", sample_pages.LONG).strip() in re.sub(r"\s+", " ", whole)
    assert sample_pages.LONG[:1000] not in "".join(page.visible)


def test_many_files_and_labels_are_summarized(pages: dict[str, str]) -> None:
    page = Page(pages["report"])
    text, visible = "".join(page.texts), "".join(page.visible)
    assert "66 files (3,960 records, chat (42), prompt (24))" in visible
    assert visible.count("tickets-of-customer") == 4 and "and 68 more" in visible
    assert all(f"tickets-of-customer-{n:03d}.jsonl" in text for n in range(72))
    assert "The whole matrix: 40 labels" in visible and "43 groups of records" in visible
    assert "answers without a label" in visible and "noLabelShare" not in text
    assert "answer format" in visible and "Problem." in visible
    assert "BLEU left out: the references are single words." in visible
    assert "2026-01-01 chrF, test" in visible and "wikitext, bits_per_byte (lower" in visible


def test_a_report_without_texts_shows_none(tmp_path: Path) -> None:
    evaluation = sample_pages.make_evaluation(records=40, labels=4)
    job = sample_pages.make_job(tmp_path, files=2)
    page = render_job_page(job, [], evaluation, include_texts=False)
    assert "Read the request" not in page and "parcel" not in page and "No loss values" in page
    failed = sample_pages.make_job(tmp_path, status="Failed", failure_message="<b>disk full</b>")
    page = render_job_page(failed, sample_pages.make_curves(1), None)
    assert Page(page).faults == [] and "&lt;b&gt;disk full&lt;/b&gt;" in page


@given(st.floats(1e-6, 1e12), st.booleans())
def test_ticks_are_round_numbers_up_to_the_highest_value(highest: float, whole: bool) -> None:
    ticks = choose_ticks(highest, whole=whole)
    step = ticks[1]
    assert re.fullmatch("[125]0*", f"{step:.6e}".replace(".", "").partition("e")[0])
    assert ticks[0] == 0 and ticks[-2] < highest <= ticks[-1] * (1 + 1e-6)
    assert len(ticks) <= 2 * TICKS and (whole or len(ticks) > TICKS / 2)
    assert ticks == [pytest.approx(n * step) for n in range(len(ticks))]
    assert not whole or all(tick == int(tick) for tick in ticks)


def test_the_axes_of_a_loss_curve_are_round() -> None:
    assert choose_ticks(11.2) == [0, 2, 4, 6, 8, 10, 12]
    assert choose_ticks(0) == choose_ticks(float("inf")) == [0, 1]
    assert choose_ticks(3, whole=True) == [0, 1, 2, 3]
    curve = draw_loss_curve(sample_pages.make_curves(20_000)) or ""
    assert ">12</text>" in curve and ">20,000</text>" in curve and len(curve) < 60_000
    assert "Training: 20000 points, from 11.200 at step 1" in curve
    assert draw_loss_curve([]) is None
    assert choose_range(0.2, 11.2) == choose_ticks(11.2)
    assert choose_range(-0.3, 1.0) == [-0.4, -0.2, 0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert choose_range(-2.0, -1.0)[0] == -2.0 and choose_range(-2.0, -1.0)[-1] == 0


def test_the_curve_of_a_job_that_learns_from_rewards_shows_them() -> None:
    points = [
        dataclasses.replace(p, loss=0.0, reward=-0.5 + p.step / 10)
        for p in sample_pages.make_curves(11)
    ]
    drawn = draw_loss_curve(points) or ""
    assert "Reward by optimizer step" in drawn and "mean reward" in drawn
    assert "from -0.500 at step 1 to 0.500 at step 11" in drawn
    assert metric_columns(points)[3:] == ("RATE", "TOKENS/S", "REWARD")
    assert {len(row) for row in metric_rows(points)} == {len(metric_columns(points))}


def test_a_histogram_of_equal_lengths_is_one_bar_with_its_limit() -> None:
    drawing = draw_histogram([4.5, 5.5], [3], limit=4)
    assert "3 records of 5 to 5 tokens; the tallest of 1 bars has 3." in drawing
    assert drawing.count('class="bin"') == 1 and ">cut at 4</text>" in drawing
    assert "cut at" not in draw_histogram([4.5, 5.5], [3], limit=2048)


def test_shared_text_is_what_half_of_the_texts_have_in_whole_words() -> None:
    rule = "Answer in one word, and use only the words that are listed below.\n"
    end = "\nThink about it, then write nothing but the word that you have chosen. "
    texts = [f"{rule}red or rust {n}?{end}" for n in range(3)] + ["short", "other"]
    shared = find_shared_text(texts)
    assert shared == (rule, end)
    assert [shared.split(text).rest for text in texts[-3:]] == ["red or rust 2?", "short", "other"]
    assert find_shared_text(texts[:2]) == ("", "") == find_shared_text([])


def luminance(color: str) -> float:
    """Return the relative luminance of a color of the style (WCAG 2.2)."""
    if color.startswith("#"):
        digits = color[1:] if len(color) == 7 else "".join(2 * digit for digit in color[1:])
        channels = [int(digits[n : n + 2], 16) for n in (0, 2, 4)]
    else:
        channels = [int(part) for part in color.split(",")]
    linear = [c / 3294.6 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_the_contrast_of_wcag_aa_in_both_color_schemes() -> None:
    light, dark = (
        dict(re.findall(r"--(\w+): ([^;]+);", block))
        for block in re.findall(r":root \{(.*?)\}", STYLE, re.DOTALL)[:2]
    )
    for colors in (light, dark):
        for ink in ("ink", "soft", "good", "warning", "bad", "mark"):
            for ground in ("page", "tint"):
                pair = sorted((luminance(colors[ink]), luminance(colors[ground])))
                assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5, (ink, ground)


def test_the_report_has_what_the_judge_says_beside_each_answer(pages: dict[str, str]) -> None:
    page = Page(pages["report"])
    text = " ".join(page.texts)
    assert "Judged on Bedrock" in text and "The tuned model is better: correctness." in text
    assert "Correctness 1.000" in text and ": " in text and "It names the queue." in text
    assert "Correctness not scored" in text
    assert "What the judge says" in text and "What the judge says" not in pages["compare"]
    assert "bedrock-judge" in pages["compare"] or "Correctness 0" in pages["compare"]
