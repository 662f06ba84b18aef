"""Recognize what a record is, by evidence: its keys, their types and nesting, and their values.

A record is matched against every registered format, the fullest match first. What the best match
does not use must say nothing (key_roles.py) or be repeated in what it uses; otherwise there are two
readings, and the error has the lines to paste (proposals.py). Nothing is chosen by
similarity.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from cloudft.data.formats.columns_line import OPTIONAL_COLUMNS, with_own_names
from cloudft.data.formats.key_roles import may_be_left_out
from cloudft.data.formats.proposals import (
    explain_leftover,
    explain_missing_column,
    explain_unknown,
    may_be_a_label,
    propose_columns,
    propose_rewriting,
)
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord, Record
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.registry import (
    all_formats,
    find_format,
    get_format,
    registry_generation,
)

_QUOTED = re.compile(r"'([^']*)'")
MIN_RENDERED_TEXTS = 2
"""Texts that a further text must have in it to count as the record, rendered."""


@dataclass(frozen=True)
class Match:
    """A format that has its keys in a record. `unused` are the record's other keys."""

    format: RecordFormat
    unused: tuple[str, ...]


def parse_record(value: RawRecord, columns: Mapping[str, str], target: str = "") -> Record:
    """Parse one raw record. Raises BadRecord.

    `columns` maps canonical keys to the user's columns; a record that has none of these columns
    (as general data of `data.mix` may) is parsed by its own keys. `target` is the format that the
    record is staged for: some take prompts without an answer.
    """
    dropped: tuple[str, ...] = ()
    if columns:
        value, dropped = rename_columns(flatten_record(value, columns), columns)
    target_format = find_format(target)
    if target_format is not None and target_format.parse_unanswered is not None:
        unanswered = target_format.parse_unanswered(value)
        if unanswered is not None:
            return unanswered
    record = _recognize(value, is_labeled=target_format is None or target_format.is_labeled)
    return replace(record, left_out=(*record.left_out, *dropped)) if dropped else record


def rename_columns(
    value: RawRecord, columns: Mapping[str, str]
) -> tuple[RawRecord, tuple[str, ...]]:
    """Return the columns that the user named, by canonical key, and the names of all others.

    Naming columns is the decision to leave the others out. A record that has none of them stays as
    it is. Raises BadRecord for a missing one; those that only say more, such as a system prompt,
    may be missing in some records.
    """
    if not any(column in value for column in columns.values()):
        return value, ()
    missing = [
        column
        for name, column in columns.items()
        if column not in value and not _is_optional(name, columns)
    ]
    if missing:
        raise explain_missing_column(missing[0], columns, value)
    renamed = {name: value[column] for name, column in columns.items() if column in value}
    used = set(columns.values())
    dropped = [
        key for key, item in value.items() if key not in used and item not in (None, "", [], {})
    ]
    return renamed, tuple(dropped)


def flatten_record(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return a record of an annotation tool as a row; another record as it is. Raises BadRecord."""
    for format in _flattening_formats(tuple(value), registry_generation()):
        if format.flatten and (format.recognizes is None or format.recognizes(value)):
            return format.flatten(value, columns)
    return value


@lru_cache(maxsize=1024)
def _flattening_formats(keys: tuple[str, ...], generation: int) -> tuple[RecordFormat, ...]:
    """Return the formats of annotation tools whose keys are there."""
    present = set(keys)
    return tuple(f for f in all_formats() if f.flatten is not None and f.keys.match(present))


def is_annotated(keys: Iterable[str]) -> bool:
    """Return whether a record with these keys is of an annotation tool's export."""
    return bool(_flattening_formats(tuple(keys), registry_generation()))


def _is_optional(name: str, columns: Mapping[str, str]) -> bool:
    return name in OPTIONAL_COLUMNS or (name == "input" and "instruction" in columns)


def match_format(value: RawRecord) -> RecordFormat | None:
    """Return the format that fits a record's keys and values best, or None."""
    match = next(_find_matches(value), None)
    return match.format if match else None


def _find_matches(value: RawRecord) -> Iterator[Match]:
    """Yield the formats that fit, the fullest first.

    A null value counts as its key being there, since a column that is null in one row is still the
    column; but not if all that a format needs is null.
    """
    for match in _match_keys(tuple(value), registry_generation()):
        required = match.format.keys.required
        if all(value[key] is None for key in required):
            continue
        if match.format.recognizes is None or match.format.recognizes(value):
            yield match


@lru_cache(maxsize=1024)  # the records of a file tend to have the same keys
def _match_keys(keys: tuple[str, ...], generation: int) -> tuple[Match, ...]:
    """Return the formats whose required keys are there, those that use the most keys first."""
    present = set(keys)
    found = []
    for format in all_formats():
        if format.parse is None or not format.keys.match(present):
            continue
        known = {*format.keys.required, *format.keys.optional}
        unused = tuple([key for key in keys if key not in known and not format.reads_all_keys])
        found.append(Match(format, unused))
    # sorted() is stable: of two that use as many keys, the one that is registered first leads.
    return tuple(sorted(found, key=lambda match: len(match.unused)))


def _recognize(value: RawRecord, *, is_labeled: bool = True) -> Record:
    """Return the record in the format that fits it best. Raises BadRecord."""
    match = next(_find_matches(value), None)
    if match is not None:
        return _read_as(match, value, is_labeled=is_labeled)
    names = _usual_names(tuple(value), registry_generation())
    renamed = {names.get(key, key): item for key, item in value.items()}
    match = next(_find_matches(renamed), None) if names else None
    if match is None:
        raise _explain_unknown(value, is_labeled=is_labeled)
    own = {usual: key for key, usual in names.items()}
    try:
        record = _read_as(match, renamed, is_labeled=is_labeled)
    except BadRecord as bad:
        raise _with_own_keys(bad, own) from None
    return replace(record, left_out=tuple([own.get(key, key) for key in record.left_out]))


def _with_own_keys(bad: BadRecord, own: Mapping[str, str]) -> BadRecord:
    """Return an error about keys as a format writes them with the keys as the record has them."""
    message = _QUOTED.sub(lambda name: repr(own.get(name[1], name[1])), bad.message)
    fix = _QUOTED.sub(lambda name: repr(own.get(name[1], name[1])), bad.fix)
    field = bad.field and own.get(bad.field.removeprefix("/"), bad.field.removeprefix("/"))
    return BadRecord(bad.code, message, with_own_names(fix, own), field)


def _read_as(match: Match, value: RawRecord, *, is_labeled: bool) -> Record:
    """Return the record in a format that fits, if what that leaves out says nothing."""
    assert match.format.parse is not None
    unused = [key for key in match.unused if value[key] not in (None, "", [], {})]
    if not unused or not match.format.is_trained_on:
        return match.format.parse(value)
    # Checked before parsing: a second reading explains what parsing would call an error.
    if is_labeled and _has_label(value, match, unused):
        raise _explain_unknown(value, is_labeled=is_labeled)
    record = match.format.parse(value)
    texts = _texts_of(record)
    used = [v for key, v in value.items() if key not in unused and isinstance(v, str) and v.strip()]
    lost = [
        key
        for key in unused
        if not may_be_left_out(key, value[key]) and not _repeats(value[key], texts, used)
    ]
    if lost:
        raise explain_leftover(lost, value, match.format, _other_readings(value))
    return replace(record, left_out=(*record.left_out, *unused))


def _explain_unknown(value: RawRecord, *, is_labeled: bool) -> BadRecord:
    """Return the error for a record that no format takes.

    If columns can't help, and the keys are those of a format, it is what that format says.
    """
    unknown = explain_unknown(value, is_labeled=is_labeled)
    if propose_columns(value, is_labeled=is_labeled):
        return unknown
    rewriting = propose_rewriting(value) if is_labeled else ""
    for match in _match_keys(tuple(value), registry_generation()):
        if match.format.parse is not None and match.format.is_trained_on:
            try:
                match.format.parse(value)
            except BadRecord as bad:
                if not rewriting:
                    return bad
                field = (bad.field or "").removeprefix("/")
                if repr(field) in rewriting:
                    return BadRecord(bad.code, bad.message, rewriting, field)
    return unknown


def _has_label(value: RawRecord, match: Match, unused: Sequence[str]) -> bool:
    """Return whether an unlabeled match has keys beside it that may hold its label."""
    if match.format.is_labeled:
        return False
    return any(may_be_a_label(key, value[key]) for key in unused)


def _other_readings(value: RawRecord) -> list[RecordFormat]:
    """Return the formats that fit equally well, in order."""
    matches = list(_find_matches(value))
    fewest = len(matches[0].unused)
    return [m.format for m in matches if len(m.unused) == fewest and m.format.is_trained_on]


@lru_cache(maxsize=1024)
def _usual_names(keys: tuple[str, ...], generation: int) -> Mapping[str, str]:
    """Return the formats' own keys of those that differ in case or in outer spaces."""
    known = {
        key.lower(): key
        for format in all_formats()
        if format.parse is not None
        for key in (*format.keys.required, *format.keys.optional)
    }
    names = {
        key: known[key.strip().lower()]
        for key in keys
        if key not in known.values() and key.strip().lower() in known
    }
    counts = Counter([*names.values(), *(key for key in keys if key not in names)])
    return {key: name for key, name in names.items() if counts[name] == 1}


def _texts_of(record: Record) -> list[str]:
    if isinstance(record, Conversation):
        return [*record.system, *(text for turn in record.turns for text in turn.all_texts)]
    return [record.text]


def _repeats(value: object, texts: Sequence[str], used: Sequence[str]) -> bool:
    """Return whether a value says only what the record says anyway.

    It is one of the texts (UltraChat's `prompt`, an `input` once more), or all of them in one text
    (Alpaca's `text`); `used` are the texts as they are written in the record.
    """
    if not isinstance(value, str):
        return False
    if value in texts or value in used:
        return True
    return any(
        len(parts) >= MIN_RENDERED_TEXTS and all(part in value for part in parts)
        for parts in (texts, used)
    )


@dataclass(frozen=True)
class Detection:
    """The format of some records, and in words what shows it.

    `matched` of the `seen` records are in this format.
    """

    format: RecordFormat
    evidence: str
    matched: int
    seen: int


def detect_format(
    values: Sequence[RawRecord], columns: Mapping[str, str] | None = None, target: str = ""
) -> Detection | None:
    """Return the format of most of the records, by parsing them; None if none can be parsed.

    `columns` and `target` are those of `parse_record`. Where two formats match equally often, the
    one that is registered first wins.
    """
    counts: Counter[str] = Counter()
    matching: dict[str, list[RawRecord]] = {}
    for value in values:
        try:
            name = parse_record(value, columns or {}, target).format
        except BadRecord:
            continue
        if find_format(name) is not None:
            counts[name] += 1
            matching.setdefault(name, []).append(value)
    if not counts:
        return None
    rank = {format.name: place for place, format in enumerate(all_formats())}
    name = max(counts, key=lambda name: (counts[name], -rank[name]))
    format = get_format(name)
    shown = [
        rename_columns(flatten_record(v, columns), columns)[0] if columns else v
        for v in matching[name]
    ]
    return Detection(format, format.describe(shown), counts[name], len(values))
