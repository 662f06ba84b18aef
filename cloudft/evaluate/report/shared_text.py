"""Find the instructions that most prompts repeat, so that a page shows them once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

MIN_LENGTH = 60
"""Characters of a shared text; shorter ones stay with their prompts."""
MIN_TEXTS = 3
"""Texts that share a beginning or an end, at least; and at least half of them."""


class SharedText(NamedTuple):
    """The beginning and the end that most texts have; empty where they have none."""

    beginning: str
    end: str

    def split(self, text: str) -> TextParts:
        """Return what a text has besides the shared parts."""
        begins = bool(self.beginning) and text.startswith(self.beginning)
        rest = text[len(self.beginning) :] if begins else text
        ends = bool(self.end) and rest.endswith(self.end)
        return TextParts(rest[: -len(self.end)] if ends else rest, begins, ends)


class TextParts(NamedTuple):
    """A text without the shared parts, and whether it has them."""

    rest: str
    has_beginning: bool
    has_end: bool


def find_shared_text(texts: Sequence[str]) -> SharedText:
    """Return what at least half of the texts begin with, and then end with, in whole words."""
    beginning = _shared_prefix(texts)
    rests = [SharedText(beginning, "").split(text).rest for text in texts]
    return SharedText(beginning, _shared_prefix([rest[::-1] for rest in rests])[::-1])


def _shared_prefix(texts: Sequence[str]) -> str:
    """Return the longest prefix of half of the texts, up to the end of a line, or else a word."""
    count = max(MIN_TEXTS, (len(texts) + 1) // 2)
    ordered = sorted(texts)
    # Texts with a common prefix are neighbors in this order.
    groups = zip(ordered, ordered[count - 1 :], strict=False)
    prefixes = (_common_prefix(first, last) for first, last in groups)
    longest = max(prefixes, key=len, default="")
    for separator in ("\n", " "):
        cut = longest[: longest.rfind(separator) + 1]
        if len(cut) >= MIN_LENGTH:
            return cut
    return ""


def _common_prefix(first: str, second: str) -> str:
    pairs = enumerate(zip(first, second, strict=False))
    length = next((n for n, (a, b) in pairs if a != b), min(len(first), len(second)))
    return first[:length]
