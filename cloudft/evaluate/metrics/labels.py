"""Decide which label an answer means, by rules under which no two labels are ever confused."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

OPENING_MARKS = "\"'`*(["
CLOSING_MARKS = "\"'`*)].,;:!?"
"""Characters around an answer that are no part of it. A dot before it may be: `.5` is not `5`."""
ALL_MARKS = OPENING_MARKS + CLOSING_MARKS + " "
LEAD_IN = re.compile(
    r"""(?:(?:the\ )?(?:(?:correct|right|final|best)\ )?
        (?:answer|label|category|class|classification|intent|sentiment|topic)
        (?:\ is\ ?:?\ |\ ?:\ ?)
        |(?:it|this)\ is\ ?:?\ )""",
    re.IGNORECASE | re.VERBOSE,
)
"""Words before a label that say only that a label follows."""

Key = Callable[[str], str]


def normalize_text(text: str) -> str:
    """Return the text in Unicode's form NFC, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def extract_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that an answer means, or None when it means none or several.

    An answer means a label when all of it is the label (see `match_label`), or when its first line
    is: alone or after a lead-in such as `Answer:` or `The label is`. Any other word, such as a
    `not`, makes it no label. An answer with another label in a later line means several.
    """
    label = match_label(text, labels)
    if label is not None:
        return label
    lines = [line for line in text.splitlines() if line.strip()]
    meant = [_match_line(line, labels) for line in lines[:1]]
    others = {match_label(line, labels) for line in lines[1:]}
    return meant[0] if meant and others <= {None, meant[0]} else None


def _match_line(line: str, labels: Sequence[str]) -> str | None:
    label = match_label(line, labels)
    lead_in = LEAD_IN.match(_collapse_spaces(line).lstrip(OPENING_MARKS))
    if label is not None or lead_in is None:
        return label
    return match_label(_collapse_spaces(line).lstrip(OPENING_MARKS)[lead_in.end() :], labels)


def match_label(text: str, labels: Sequence[str]) -> str | None:
    """Return the label that equals a whole text, or None.

    Texts are compared in Unicode's form NFC, first exactly, then ignoring more and more: white
    space, case, marks around the text, marks and case. The first comparison that finds a label
    decides; one that finds several, because it ignores where they differ, finds none. A label that
    another one equals but for marks and case (`:A` and `A:`) must be in the text as it is.
    """
    for key, known in _index_labels(tuple(labels)):
        matches = known.get(key(text), ())
        if matches:
            label = matches[0]
            is_meant = _exact(label) in _exact(text) or label not in _find_alike(tuple(labels))
            return label if len(matches) == 1 and is_meant else None
    return None


@lru_cache(maxsize=8)
def _find_alike(labels: tuple[str, ...]) -> frozenset[str]:
    """Return the labels that equal another one but for marks at both ends, and case."""
    alike: dict[str, list[str]] = {}
    for label in labels:
        alike.setdefault(_fold(label).strip(ALL_MARKS), []).append(label)
    return frozenset(label for group in alike.values() if len(group) > 1 for label in group)


@lru_cache(maxsize=8)
def _index_labels(
    labels: tuple[str, ...],
) -> list[tuple[Key, Mapping[str, Sequence[str]]]]:
    """Return each comparison, the strictest first, and the labels by what it compares."""
    index: list[tuple[Key, Mapping[str, Sequence[str]]]] = []
    for key in (_exact, _collapse_spaces, _fold, _remove_marks, _fold_without_marks):
        known: dict[str, list[str]] = {}
        for label in labels:
            # A label of marks alone, such as `:(`, is nothing without them: compare it as it is.
            if label.strip(ALL_MARKS) or key in (_exact, _collapse_spaces):
                known.setdefault(key(label), []).append(label)
        index.append((key, known))
    return index


def _exact(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def _collapse_spaces(text: str) -> str:
    return " ".join(unicodedata.normalize("NFC", text).split())


def _fold(text: str) -> str:
    # The case folding of a text in NFC need not be in NFC.
    return _collapse_spaces(_collapse_spaces(text).casefold())


def _remove_marks(text: str) -> str:
    bare = _collapse_spaces(text)
    while (shorter := bare.lstrip(OPENING_MARKS).rstrip(CLOSING_MARKS).strip()) != bare:
        bare = shorter
    return bare


def _fold_without_marks(text: str) -> str:
    return _fold(_remove_marks(text))
