"""The look of every page of cloudft in one place: type, color, spacing, dark mode and print."""

from __future__ import annotations

from functools import cache
from importlib.resources import files


@cache
def read_stylesheet() -> str:
    """Return the style sheet that every page has: report, comparison, review, endpoint, workbench.

    It has no address of another file in it, so that a page may contain it or link to it.
    """
    return files(__name__).joinpath("base.css").read_text("utf-8")
