"""Find secrets and personal data in texts, name them, and redact them.

Keys and tokens are found by the patterns of detect-secrets, and by our own for those that it lacks
or matches in part; card numbers, IBANs, phone numbers and IP addresses by what makes them valid
(pii_validators.py). What is found is never printed.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from cloudft.data.analysis.pii_patterns import Hint, Outline, PiiPattern, load_patterns
from cloudft.data.formats.record import json_pointer


@dataclass(frozen=True)
class PiiMatch:
    """A secret or personal datum: its kind, and its position in the text."""

    kind: str
    start: int
    end: int


RankedPattern = tuple[int, PiiPattern]
"""A pattern and its rank: the most specific is 0."""


def find_pii(text: str) -> list[PiiMatch]:
    """Return what is private in a text, in order.

    Overlapping matches are merged into one, of the most specific kind.
    """
    return find_in_texts([text]).get(0, [])


Matches = dict[int, list[PiiMatch]]
"""What is private in some texts, by their index, in order; a clean text has no entry."""


def find_in_texts(texts: Sequence[str]) -> Matches:
    """Return what is private in each of many texts."""
    # Each text follows a line break, which no hint matches.
    starts = list(accumulate((len(text) + 1 for text in texts), initial=1))
    views = Outline.of("".join([part for text in texts for part in ("\n", text)]))
    likely: dict[int, list[RankedPattern]] = {}
    for hint, patterns in _patterns_by_hint():
        for index in _texts_with(hint, views, starts):
            likely.setdefault(index, []).extend(patterns)
    matches_by_text = {}
    for index, patterns in sorted(likely.items()):
        matches = [
            (start, start + size, rank, pattern.kind)
            for rank, pattern in patterns
            for start, size in _valid_matches(pattern, texts[index], views, starts[index])
        ]
        if matches:
            matches_by_text[index] = _merge(sorted(matches))
    return matches_by_text


@lru_cache(maxsize=1)
def _patterns_by_hint() -> list[tuple[Hint | None, list[RankedPattern]]]:
    by_hint: dict[Hint | None, list[RankedPattern]] = {}
    for ranked in enumerate(load_patterns()):
        by_hint.setdefault(ranked[1].hint, []).append(ranked)
    return list(by_hint.items())


def _texts_with(hint: Hint | None, views: Outline, starts: Sequence[int]) -> Iterator[int]:
    """Yield the indices of the texts whose outline has the hint; `starts` is where each begins."""
    if hint is None:
        yield from range(len(starts) - 1)
        return
    view, at = views.view(hint), 0
    while match := hint.regex.search(view, at):
        index = bisect_right(starts, match.start()) - 1
        yield index
        at = starts[index + 1]


def _valid_matches(
    pattern: PiiPattern, text: str, views: Outline, start: int
) -> Iterator[tuple[int, int]]:
    """Yield start and length of each match in a text, whose outline begins at `start`."""
    group = "secret" if "secret" in pattern.regex.groupindex else 0
    if pattern.hint is None or pattern.starts is None:
        matches = pattern.regex.finditer(text)
    else:
        hints = _find_all(pattern.hint.regex, views.view(pattern.hint), start, start + len(text))
        matches = _match_near(pattern, text, (at - start for at in hints))
    for match in matches:
        if size := pattern.match_length(match[group]):
            yield match.start(group), size


def _find_all(regex: re.Pattern[bytes], view: bytes, at: int, end: int) -> Iterator[int]:
    """Yield every position where the regex matches, overlapping ones included."""
    while match := regex.search(view, at, end):
        yield match.start()
        at = match.start() + 1


def _match_near(pattern: PiiPattern, text: str, hints: Iterable[int]) -> Iterator[re.Match[str]]:
    """Yield what `finditer` would, by trying the pattern only where its hints allow a match."""
    assert pattern.starts is not None
    end = 0
    for hint in hints:
        for at in pattern.starts(text, end, hint):
            if at >= end and (match := pattern.regex.match(text, at)):
                yield match
                end = max(match.end(), at + 1)


def _merge(matches: Iterable[tuple[int, int, int, str]]) -> list[PiiMatch]:
    """Return sorted matches (start, end, rank, kind) with overlapping ones as one."""
    hits: list[PiiMatch] = []
    surest = 0
    for start, end, rank, kind in matches:
        if hits and start < hits[-1].end:
            last = hits.pop()
            start, end, before = last.start, max(end, last.end), (surest, last.kind)
            rank, kind = min(before, (rank, kind))
        hits.append(PiiMatch(kind, start, end))
        surest = rank
    return hits


def redact_text(text: str) -> str:
    """Return the text with <KIND> in place of each match; scanning it again finds nothing."""
    while hits := find_pii(text):
        parts, at = [], 0
        for hit in hits:
            parts += [text[at : hit.start], f"<{hit.kind}>"]
            at = hit.end
        text = "".join([*parts, text[at:]])
    return text


def iter_strings(value: object, *keys: str | int) -> Iterator[tuple[str, str]]:
    """Yield every text within a JSON value, and every long number, with its JSON pointer."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from iter_strings(inner, *keys, key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from iter_strings(inner, *keys, index)
    elif (text := _text(value)) is not None:
        yield json_pointer(*keys), text


def collect_strings(value: object, texts: list[str]) -> None:
    """Append the texts of `iter_strings`, in its order, without the pointers."""
    if isinstance(value, dict):
        for inner in value.values():
            collect_strings(inner, texts)
    elif isinstance(value, list):
        for inner in value:
            collect_strings(inner, texts)
    elif (text := _text(value)) is not None:
        texts.append(text)


def _text(value: object) -> str | None:
    """Return what is scanned: a text, or a whole number long enough for a card's. Else None."""
    if isinstance(value, str):
        return value
    return str(value) if isinstance(value, int) and abs(value) >= 10**12 else None


def redact_json(value: object) -> object:
    """Return a JSON value with each of its texts redacted."""
    if isinstance(value, dict):
        return {key: redact_json(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [redact_json(inner) for inner in value]
    text = _text(value)
    if text is None:
        return value
    clean = redact_text(text)
    return value if clean == text else clean
