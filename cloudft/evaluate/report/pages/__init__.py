"""Render self-contained pages: one HTML file without scripts, for light, dark and print."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

from cloudft.errors import StoreError, UsageError
from cloudft.evaluate.metrics.metric_labels import diagnostic_label, metric_label
from cloudft.storage.atomic_files import atomic_write, create_file_atomically
from cloudft.web.design import read_stylesheet

LEVEL_LABELS = {"good": "OK", "warning": "Warning", "bad": "Problem"}
"""Level of a diagnostic -> its name on a page."""


def render_template(template: str, values: Mapping[str, object]) -> str:
    """Return the page of a template in this folder. Every value is escaped.

    Raises UsageError when jinja2 is not installed.
    """
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
        from markupsafe import Markup
    except ImportError as error:
        raise UsageError(
            "pages need jinja2, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
    environment = Environment(
        loader=PackageLoader("cloudft.evaluate.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "signed": format_signed,
        "metric": metric_label,
        "diagnostic": diagnostic_label,
        "level": LEVEL_LABELS.__getitem__,
    }
    style = read_stylesheet()
    digest = b64encode(sha256(style.encode()).digest()).decode()
    # Safe without escaping: the style is cloudft's own.
    own = {"style": Markup(style), "style_hash": f"sha256-{digest}"}
    return environment.get_template(template).render({**values, **own})


def write_page(path: Path, page: str, *, force: bool) -> None:
    """Write a page, or another file for people or programs, atomically.

    Raises UsageError when the file exists and `force` is not set, StoreError.
    """
    content = page.encode()
    try:
        if force:
            atomic_write(path, content)
            return
        with create_file_atomically(path) as temporary:
            temporary.write_bytes(content)
    except FileExistsError:
        raise UsageError(
            "the file exists already", file=str(path), fix="name another file, or use --force."
        ) from None
    except OSError as error:
        raise StoreError(
            f"can't write the file: {error.strerror}",
            file=str(path),
            fix="name a file in a folder that you can write to.",
        ) from error


def format_number(value: float | None) -> str:
    """Return a number with three decimal places, none for large numbers; `?` for None and NaN."""
    if value is None or value != value:
        return "?"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def format_signed(value: float | None) -> str:
    """Return a number with its sign, as `format_number` does."""
    if value is None or value != value:
        return "?"
    return f"{value:+.3f}" if abs(value) < 100 else f"{value:+,.0f}"
