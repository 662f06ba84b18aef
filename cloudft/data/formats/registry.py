"""The registry of record formats, and how a record is written in one (recognizer.py reads them).

To add a format, write a module that defines a `RecordFormat` and list it in `_BUILT_IN`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cloudft.data.formats import (
    annotated_texts,
    argilla,
    chat_dialects,
    claude_messages,
    converse,
    distillation,
    invocation_log,
    label_studio,
    media,
    messages,
    pairs,
    plain_text,
    preference_pairs,
    preferences,
    reinforcement,
)
from cloudft.data.formats.record import BadRecord, Conversation, Document, Record, Tool
from cloudft.data.formats.record_format import RecordFormat

_BUILT_IN = (
    # Media first: a record with pictures has all keys of one without.
    *media.FORMATS,
    invocation_log.FORMAT,
    preferences.CANDIDATES_FORMAT,
    *pairs.FORMATS,
    # The three chat formats share the key `messages`: the more specific ones are tried first.
    converse.FORMAT,
    claude_messages.FORMAT,
    messages.FORMAT,
    *chat_dialects.FORMATS,
    distillation.FORMAT,
    reinforcement.FORMAT,
    reinforcement.VERL_FORMAT,
    reinforcement.PROMPT_FORMAT,
    *preference_pairs.FORMATS,
    *preferences.FORMATS,
    *label_studio.FORMATS,
    *argilla.FORMATS,
    *annotated_texts.FORMATS,
    plain_text.INPUT_FORMAT,
    plain_text.TEXT_FORMAT,
)
_formats: dict[str, RecordFormat] = {}
_generation = [0]


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
    _generation[0] += 1


def unregister_format(name: str) -> None:
    """Remove a format."""
    del _formats[name]
    _generation[0] += 1


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


def format_title(name: str) -> str:
    """Return what messages call the format of that name; the name if it is none of them."""
    format = _formats.get(name)
    return (format.title or format.name) if format else name


def all_formats() -> tuple[RecordFormat, ...]:
    """Return every format, in the order in which records are matched."""
    return tuple(_formats.values())


def convert_targets() -> tuple[str, ...]:
    """Return the names of the formats that `data convert --to` offers."""
    return tuple(f.name for f in all_formats() if f.write and f.is_convert_target)


def registry_generation() -> int:
    """Return a number that changes whenever a format is registered or removed."""
    return _generation[0]


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
    texts = [*record.system, *(text for turn in record.all_turns for text in turn.all_texts)]
    # Tools are read, and billed, like any text of the prompt.
    return sum(map(len, texts)) + sum(map(_count_tool_characters, record.tools))


def _count_tool_characters(tool: Tool) -> int:
    import orjson

    return len(tool.name) + len(tool.description) + len(orjson.dumps(tool.parameters))


for _format in _BUILT_IN:
    register_format(_format)
