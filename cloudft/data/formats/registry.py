"""Every shape of record that users have, to the one form that a base model takes.

A record becomes `Turns` (labelled) or `Document` (unlabelled), and those become canonical bytes.
Shapes and formats: docs of Bedrock's data preparation, facts 4.1. A fault is a `BadRecord`.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from cloudft.data.formats.chat_messages import parse_messages
from cloudft.data.formats.prompt_only_records import (
    DISTILLATION,
    REFERENCE_KEY,
    REINFORCEMENT,
    parse_prompt_only,
    to_prompt_with_reference,
)
from cloudft.data.formats.record import BadRecord, Conversation, Document, require_text

UNLABELED_FORMATS = ("input", "text")
CONVERSE_SCHEMA_VERSION = "bedrock-conversation-2024"


@dataclass(frozen=True)
class RecordFormat:
    """A set of keys that makes a record, and how it is read."""

    name: str
    required: tuple[str, ...]
    optional: tuple[str, ...]
    parse: Callable[[Mapping[str, Any]], Conversation | Document]

    def matches(self, keys: set[str]) -> bool:
        """True when a record of these keys has this shape."""
        return set(self.required) <= keys <= {*self.required, *self.optional}

    def __str__(self) -> str:
        keys = [f'"{key}"' for key in self.required] + [f'"{key}"?' for key in self.optional]
        return "{" + ", ".join(keys) + "}"


def parse_record(
    value: Mapping[str, Any], columns: Mapping[str, str], target: str = ""
) -> Conversation | Document:
    """A raw record as what it says. `columns` maps canonical names to the user's; raises BadRecord.

    A `target` of questions takes records without an answer too (questions.py).

    A record that has none of the user's columns (as general data of `mix` may) is taken as it is.
    """
    if columns and any(column in value for column in columns.values()):
        value = _renamed(value, columns)
    question = parse_prompt_only(value, target)
    if question is not None:
        return question
    keys = set(value)
    shape = next((shape for shape in INPUT_FORMATS if shape.matches(keys)), None)
    if shape is None:
        raise BadRecord("WrongKeys", *_wrong_keys(tuple(value), bool(columns)))
    return shape.parse(value)


def _renamed(value: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """Only the columns that the user named, under their canonical names."""
    missing = [column for column in columns.values() if column not in value]
    if missing:
        near = difflib.get_close_matches(missing[0], [str(key) for key in value], n=1)
        fix = f"did you mean {near[0]!r}?" if near else "correct data.columns"
        message = f"no column {missing[0]!r} (data.columns); the keys are {_listed(value)}"
        raise BadRecord("WrongKeys", message, fix, missing[0])
    return {name: value[column] for name, column in columns.items()}


@lru_cache(maxsize=256)  # the records of a file tend to be wrong in one way
def _wrong_keys(keys: tuple[str, ...], has_columns: bool) -> tuple[str, str, str | None]:
    """Message, remedy and key: the keys found, the nearest shape, the change that helps most."""
    shape = max(INPUT_FORMATS, key=lambda s: _likeness(keys, s))
    message = f"the keys are {_listed(keys)}; the nearest accepted shape is {shape}"
    strange = [key for key in keys if key not in (*shape.required, *shape.optional)]
    missing = [key for key in shape.required if key not in keys]
    for key in strange[:20]:
        near = difflib.get_close_matches(key[:50].lower(), missing, n=1)
        if near:
            return message, f"rename {key[:50]!r} to {near[0]!r}", key[:50]
    example = ", ".join(f"{key}: YOUR_COLUMN" for key in shape.required)
    choose = f"data.columns: {{{example}}}"
    if has_columns:
        return message, "correct data.columns", None
    if missing:
        return message, f"add {_listed(missing)}, or name your columns, {choose}", None
    return message, f"remove {_listed(strange)}, or name your columns, {choose}", strange[0][:50]


def _likeness(keys: Sequence[str], shape: RecordFormat) -> float:
    """How near a record's keys are to a shape: exact keys count most, near ones some."""
    allowed = [*shape.required, *shape.optional]
    exact = sum(key in allowed for key in keys)
    rest = [key.lower() for key in keys[:20] if key not in allowed]
    near = sum(bool(difflib.get_close_matches(key[:50], allowed, n=1)) for key in rest)
    missing = sum(key not in keys for key in shape.required)
    return exact + 0.8 * near - 0.5 * missing / len(shape.required)


def _listed(keys: Iterable[object]) -> str:
    names = [str(key)[:40] for key in keys]
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return (", ".join(repr(name) for name in names[:10]) or "none") + more


def _string(value: Mapping[str, Any], key: str, *, empty: bool = False) -> str:
    """The text at `key`. Raises for another type, and for nothing but spaces."""
    text = value[key]
    if empty and text is None:
        return ""
    if not isinstance(text, str):
        message = f"{key!r} is {_kind(text)}, not text"
        fix = f'write it as text: "{text}"' if isinstance(text, (int, float)) else "write text"
        raise BadRecord("WrongType", message, fix, key)
    if not empty:
        require_text(text, repr(key), key)
    return text


def _kind(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _pair(name: str, asked: str, answered: str) -> Callable[[Mapping[str, Any]], Conversation]:
    """A parser for two columns: what is asked, and what is to be answered."""

    def read(value: Mapping[str, Any]) -> Conversation:
        turns = (("user", (_string(value, asked),)), ("assistant", (_string(value, answered),)))
        return Conversation(name, (), turns)

    return read


def _instruction(value: Mapping[str, Any]) -> Conversation:
    """Alpaca's shape: the input follows the instruction after a blank line, and may be empty."""
    asked = _string(value, "instruction")
    given = _string(value, "input", empty=True) if "input" in value else ""
    prompt = f"{asked}\n\n{given}" if given.strip() else asked
    turns = (("user", (prompt,)), ("assistant", (_string(value, "output"),)))
    return Conversation("instruction", (), turns)


def _plain(name: str, key: str) -> Callable[[Mapping[str, Any]], Document]:
    return lambda value: Document(name, _string(value, key))


INPUT_FORMATS = (
    RecordFormat(
        "prompt-completion",
        ("prompt", "completion"),
        (),
        _pair("prompt-completion", "prompt", "completion"),
    ),
    RecordFormat("input-output", ("input", "output"), (), _pair("input-output", "input", "output")),
    RecordFormat("instruction", ("instruction", "output"), ("input",), _instruction),
    RecordFormat("messages", ("messages",), ("system", "schemaVersion"), parse_messages),
    RecordFormat("input", ("input",), (), _plain("input", "input")),
    RecordFormat("text", ("text",), (), _plain("text", "text")),
)


def encode_record(record: Conversation | Document, target: str) -> tuple[bytes, int]:
    """One canonical line in format `target`, and the characters of its texts. Raises BadRecord."""
    import orjson

    if isinstance(record, Document):
        if target not in UNLABELED_FORMATS:
            raise _wrong_task(record.format, "unlabelled", "FINE_TUNING needs prompts and answers")
        value, characters = {target: record.text}, len(record.text)
    elif target in UNLABELED_FORMATS:
        raise _wrong_task(record.format, "labelled", "CONTINUED_PRE_TRAINING takes text alone")
    else:
        value, characters = _WRITERS[target](record), _characters(record)
    return orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE), characters


def _wrong_task(shape: str, what: str, why: str) -> BadRecord:
    other = "CONTINUED_PRE_TRAINING" if what == "unlabelled" else "FINE_TUNING"
    fix = f"set customization_type: {other}, or give the other kind of data"
    return BadRecord("WrongTask", f"{what} records (shape {shape}): {why}", fix)


def _characters(record: Conversation) -> int:
    texts = [*record.system, *(text for _, parts in record.turns for text in parts)]
    return sum(map(len, texts))


def _prompt_completion(record: Conversation) -> dict[str, Any]:
    if len(record.turns) != 2:
        message = f"{len(record.turns)} turns do not fit into one prompt and one completion"
        fix = "keep one question and one answer a record, or choose a base model that takes chats"
        raise BadRecord("LosesTurns", message, fix, "messages")
    (_, asked), (_, answered) = record.turns
    prompt = "\n\n".join(["\n".join(record.system)] * bool(record.system) + ["\n".join(asked)])
    return {"prompt": prompt, "completion": "\n".join(answered)}


def _converse(record: Conversation) -> dict[str, Any]:
    value: dict[str, Any] = {"schemaVersion": CONVERSE_SCHEMA_VERSION}
    if record.system:
        value["system"] = [{"text": text} for text in record.system]
    value["messages"] = [
        {"role": role, "content": [{"text": text} for text in parts]}
        for role, parts in record.turns
    ]
    return value


def _claude(record: Conversation) -> dict[str, Any]:
    value: dict[str, Any] = {"system": "\n".join(record.system)} if record.system else {}
    value["messages"] = [
        {"role": role, "content": "\n".join(parts)} for role, parts in record.turns
    ]
    return value


def _input_output(record: Conversation) -> dict[str, Any]:
    asked, answered = _prompt_completion(record).values()
    return {"input": asked, "output": answered}


def _messages(record: Conversation) -> dict[str, Any]:
    system = [{"role": "system", "content": "\n".join(record.system)}] if record.system else []
    return {"messages": [*system, *_claude(record)["messages"]]}


def _reinforcement(record: Conversation) -> dict[str, Any]:
    question = to_prompt_with_reference(record)
    return {**_messages(question), REFERENCE_KEY: question.reference, **question.extra_fields}


_WRITERS: dict[str, Callable[[Conversation], dict[str, Any]]] = {
    "prompt-completion": _prompt_completion,
    "input-output": _input_output,
    "messages": _messages,
    "converse": _converse,
    "claude-messages": _claude,
    DISTILLATION: _converse,
    REINFORCEMENT: _reinforcement,
}
OUTPUT_FORMATS = (*_WRITERS, *UNLABELED_FORMATS)
"""Everything that records can be written as."""
