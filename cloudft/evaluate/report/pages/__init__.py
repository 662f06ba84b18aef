"""Pages that stand alone: one HTML file, nothing from outside, no script; dark, and in print."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cloudft.errors import StoreError, UsageError
from cloudft.storage.atomic_files import atomic_write, create_file_atomically


def render_template(template: str, values: Mapping[str, Any]) -> str:
    """The page of a template in this folder. Every value is escaped."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise UsageError(
            "pages are made with jinja2, which is not installed",
            fix="pip install 'cloudft[evaluate]'",
        ) from error
    environment = Environment(
        loader=PackageLoader("cloudft.evaluate.report", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters |= {"number": format_number, "spread": format_delta}
    return environment.get_template(template).render(values)


def write_page(path: Path, page: str, *, force: bool) -> None:
    """Write it, whole or not at all. Raises UsageError where a file stands, unless `force`."""
    content = page.encode()
    try:
        if force:
            atomic_write(path, content)
            return
        with create_file_atomically(path) as temporary:
            temporary.write_bytes(content)
    except FileExistsError:
        raise UsageError(
            "the file is there already", file=str(path), fix="name another one, or give --force."
        ) from None
    except OSError as error:
        raise StoreError(
            f"the page can't be written: {error.strerror}",
            file=str(path),
            fix="name a file in a folder that can be written.",
        ) from error


def format_number(value: float | None) -> str:
    """Three digits behind the point; fewer of large numbers."""
    if value is None or value != value:
        return "?"
    return f"{value:.3f}" if abs(value) < 100 else f"{value:,.0f}"


def format_delta(delta: Mapping[str, float | None]) -> str:
    """A difference and its interval."""
    value, low, high = delta["value"], delta["low"], delta["high"]
    if value is None:
        return "?"
    around = "" if low is None or high is None or low != low else f" ({low:+.3f} to {high:+.3f})"
    return f"{value:+.3f}{around}"
