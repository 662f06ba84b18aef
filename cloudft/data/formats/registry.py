"""The registry of record formats: parse any of them, write any of them, detect which one it is.

To add a format, write a module that defines a `RecordFormat` and list it in `_BUILT_IN`.
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from cloudft.data.formats import (
    claude_messages,
    converse,
    distillation,
    input_output,
    instruction,
    messages,
    plain_text,
    prompt_completion,
    reinforcement,
)
from cloudft.data.formats.record import BadRecord, Conversation, Document, RawRecord, Record
from cloudft.data.formats.record_format import Keys, RecordFormat

_BUILT_IN = (
    prompt_completion.FORMAT,
    input_output.FORMAT,
    instruction.FORMAT,
    # The three chat formats share the key `messages`: the more specific ones are tried first.
    converse.FORMAT,
    claude_messages.FORMAT,
    messages.FORMAT,
    distillation.FORMAT,
    reinforcement.FORMAT,
    plain_text.INPUT_FORMAT,
    plain_text.TEXT_FORMAT,
)
_formats: dict[str, RecordFormat] = {}


def register_format(format: RecordFormat, *, first: bool = False) -> None:
    """Add a format. Raises ValueError if its name is taken.

    Records are parsed by the first registered format that matches: with `first`, by this one before
    the others.
    """
    if format.name in _formats:
        raise ValueError(f"a record format {format.name!r} is registered already")
    others = dict(_formats)
    _formats.clear()
    _formats.update({format.name: format, **others} if first else {**others, format.name: format})
    _explain_keys.cache_clear()


def unregister_format(name: str) -> None:
    """Remove a format."""
    del _formats[name]
    _explain_keys.cache_clear()


@contextmanager
def registered_format(format: RecordFormat, *, first: bool = False) -> Iterator[RecordFormat]:
    """Register a format for the length of a `with` block."""
    register_format(format, first=first)
    try:
        yield format
    finally:
        unregister_format(format.name)


def get_format(name: str) -> RecordFormat:
    """Return the format of that name. Raises KeyError."""
    return _formats[name]


def find_format(name: str) -> RecordFormat | None:
    """Return the format of that name, None if there is none."""
    return _formats.get(name)


def all_formats() -> tuple[RecordFormat, ...]:
    """Return every format, in the order in which records are matched."""
    return tuple(_formats.values())


def convert_targets() -> tuple[str, ...]:
    """Return the names of the formats that `data convert --to` offers."""
    return tuple(f.name for f in all_formats() if f.write and f.is_convert_target)


def parse_record(value: RawRecord, columns: Mapping[str, str], target: str = "") -> Record:
    """Parse one raw record. Raises BadRecord.

    `columns` maps canonical keys to the user's columns; a record that has none of these columns
    (as general data of `data.mix` may) is parsed by its own keys. `target` is the format that the
    record is staged for: some take prompts without an answer.
    """
    if columns and any(column in value for column in columns.values()):
        value = _rename_columns(value, columns)
    target_format = _formats.get(target)
    if target_format is not None and target_format.parse_unanswered is not None:
        unanswered = target_format.parse_unanswered(value)
        if unanswered is not None:
            return unanswered
    format = match_format(value)
    if format is None or format.parse is None:
        raise BadRecord("WrongKeys", *_explain_keys(tuple(value), bool(columns)))
    return format.parse(value)


def match_format(value: RawRecord) -> RecordFormat | None:
    """Return the first format that matches a record's keys and their values, or None."""
    keys = value.keys()
    return next((f for f in _formats.values() if f.matches(value, keys)), None)


def encode_record(record: Record, target: str) -> tuple[bytes, int]:
    """Return the record as one JSON line in format `target`, and the characters of its texts.

    Raises BadRecord: WrongTask for labeled records in an unlabeled format and the other way round,
    LosesTurns for more turns than the format holds.
    """
    import orjson

    format = _formats[target]
    if isinstance(record, Document):
        if format.is_labeled:
            raise _wrong_task(record.format, "unlabeled", "FINE_TUNING needs prompts and answers")
        characters = len(record.text)
    elif not format.is_labeled:
        raise _wrong_task(record.format, "labeled", "CONTINUED_PRE_TRAINING takes text alone")
    else:
        characters = _count_characters(record)
    assert format.write is not None, f"{target} is a format that is only read"
    return orjson.dumps(format.write(record), option=orjson.OPT_APPEND_NEWLINE), characters


def _wrong_task(format: str, kind: str, reason: str) -> BadRecord:
    other = "CONTINUED_PRE_TRAINING" if kind == "unlabeled" else "FINE_TUNING"
    fix = f"set customization_type: {other}, or give the other kind of data"
    return BadRecord("WrongTask", f"{kind} records (format {format}): {reason}", fix)


def _count_characters(record: Conversation) -> int:
    texts = [*record.system, *(text for _, parts in record.turns for text in parts)]
    return sum(map(len, texts))


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
    values: Sequence[RawRecord], columns: Mapping[str, str] | None = None
) -> Detection | None:
    """Return the format of most of the records, by parsing them; None if none can be parsed.

    Where two formats match equally often, the one that is registered first wins.
    """
    counts: Counter[str] = Counter()
    matching: dict[str, list[RawRecord]] = {}
    for value in values:
        try:
            name = parse_record(value, columns or {}).format
        except BadRecord:
            continue
        if name in _formats:
            counts[name] += 1
            matching.setdefault(name, []).append(value)
    if not counts:
        return None
    rank = {name: place for place, name in enumerate(_formats)}
    name = max(counts, key=lambda name: (counts[name], -rank[name]))
    format = _formats[name]
    return Detection(format, format.describe(matching[name]), counts[name], len(values))


def _rename_columns(value: RawRecord, columns: Mapping[str, str]) -> RawRecord:
    """Return only the columns that the user named, under their canonical keys."""
    missing = [column for column in columns.values() if column not in value]
    if missing:
        near = difflib.get_close_matches(missing[0], [str(key) for key in value], n=1)
        fix = f"did you mean {near[0]!r}?" if near else "correct data.columns"
        message = f"no column {missing[0]!r} (data.columns); the keys are {_list_keys(value)}"
        raise BadRecord("WrongKeys", message, fix, missing[0])
    return {name: value[column] for name, column in columns.items()}


def input_keys() -> tuple[Keys, ...]:
    """Return the sets of keys that records may have, each once."""
    return tuple(dict.fromkeys(f.keys for f in all_formats() if f.parse is not None))


@lru_cache(maxsize=256)  # the records of a file tend to be wrong in one way
def _explain_keys(keys: tuple[str, ...], has_columns: bool) -> tuple[str, str, str | None]:
    """Return message, remedy and key: the keys found, the nearest format, the best change."""
    nearest = max(input_keys(), key=lambda candidate: _similarity(keys, candidate))
    message = f"the keys are {_list_keys(keys)}; the nearest accepted record is {nearest}"
    unknown = [key for key in keys if key not in (*nearest.required, *nearest.optional)]
    missing = [key for key in nearest.required if key not in keys]
    for key in unknown[:20]:
        near = difflib.get_close_matches(key[:50].lower(), missing, n=1)
        if near:
            return message, f"rename {key[:50]!r} to {near[0]!r}", key[:50]
    example = ", ".join(f"{key}: YOUR_COLUMN" for key in nearest.required)
    choose = f"data.columns: {{{example}}}"
    if has_columns:
        return message, "correct data.columns", None
    if missing:
        return message, f"add {_list_keys(missing)}, or name your columns, {choose}", None
    return message, f"remove {_list_keys(unknown)}, or name your columns, {choose}", unknown[0][:50]


def _similarity(keys: Sequence[str], candidate: Keys) -> float:
    """Return how near a record's keys are to a format's: exact keys count 1, similar ones 0.8."""
    allowed = [*candidate.required, *candidate.optional]
    exact = sum(key in allowed for key in keys)
    rest = [key.lower() for key in keys[:20] if key not in allowed]
    near = sum(bool(difflib.get_close_matches(key[:50], allowed, n=1)) for key in rest)
    missing = sum(key not in keys for key in candidate.required)
    return exact + 0.8 * near - 0.5 * missing / len(candidate.required)


def _list_keys(keys: Iterable[object]) -> str:
    names = [str(key)[:40] for key in keys]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(repr(name) for name in names[:10]) or "none") + more


for _format in _BUILT_IN:
    register_format(_format)
