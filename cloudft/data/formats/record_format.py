"""What a record format consists of, and the helpers that its parser and writer share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass, field

from cloudft.data.formats.record import (
    BadRecord,
    Conversation,
    JsonObject,
    RawRecord,
    Record,
    require_text,
)


@dataclass(frozen=True)
class Keys:
    """The top-level keys of a record in one format."""

    required: tuple[str, ...]
    optional: tuple[str, ...] = ()

    def match(self, keys: Set[str]) -> bool:
        """Return whether all required keys are among `keys`, whatever else is."""
        return keys >= set(self.required)

    def __str__(self) -> str:
        keys = [f'"{key}"' for key in self.required] + [f'"{key}"?' for key in self.optional]
        return "{" + ", ".join(keys) + "}"


@dataclass(frozen=True)
class RecordFormat:
    """One format of records: how it is recognized, parsed and written.

    A module of this package defines one and lists it in registry.py. Everything else (check,
    staging, `data convert`, detection, the fast path, repair) reads this description.
    """

    name: str
    keys: Keys
    """The keys that make the format, and those that its parser reads as well."""
    parse: Callable[[RawRecord], Record] | None
    """Parse a record whose keys match. Raises BadRecord. None for a format that is only written."""
    describe: Callable[[Sequence[RawRecord]], str]
    """Describe, for a person, what in these records shows the format."""
    write: Callable[[Record], JsonObject] | None = None
    """Return the record as a JSON object. Raises BadRecord if the format cannot hold it. None for
    a format that is only read."""
    is_labeled: bool = True
    """Whether records have an answer to train on; False for plain text."""
    title: str = ""
    """What it is called in messages: "ShareGPT". Its name if there is none."""
    recognizes: Callable[[RawRecord], bool] | None = None
    """Distinguish formats with the same keys by what the keys hold. None: the keys are enough."""
    canonical_columns: Mapping[str, str] = field(default_factory=dict)
    """Its keys, and the name in `data.columns` of what each holds."""
    parse_unanswered: Callable[[RawRecord], Conversation | None] | None = None
    """Parse records that staging for this format accepts besides labeled ones: prompts without an
    answer. None for other records, which are then parsed by their own format."""
    flatten: Callable[[RawRecord, Mapping[str, str]], RawRecord] | None = None
    """For exports of annotation tools: return a record as a row, so that `data.columns` (the second
    argument) can name what is nested. Raises BadRecord."""
    reads_all_keys: bool = False
    """Whether `parse` judges every key of a record, and names those that it leaves out."""
    rewrite_as: str = "prompt-completion"
    """Where `write` is None: the format in which `data split`, `mix` and `dedupe` write them."""
    text_keys: tuple[str, ...] = ()
    """For the fast path: the keys in order, if each holds a text and nothing else is allowed."""
    batch_record: Callable[..., object] | None = None
    """For the fast path: build from the texts (prompt and completion, or one text) what msgspec
    encodes to the bytes that `write` gives. None if there is no such shortcut."""
    is_trained_on: bool = True
    """False for a format that is recognized and refused by name: `parse` always raises."""
    is_convert_target: bool = True
    """Whether `data convert --to` offers it; False for formats that only a customization type
    needs."""


def get_text(value: RawRecord, key: str, *, may_be_empty: bool = False) -> str:
    """Return the text at `key`; a number counts as its digits.

    Raises BadRecord for another type and for blank text. With `may_be_empty`, null is "" and blank
    text is returned as it is.
    """
    text = value[key]
    if text is None:
        if may_be_empty:
            return ""
        fix = "give it text, or take the record out"
        raise BadRecord("EmptyField", f"{key!r} is null", fix, key)
    if isinstance(text, (int, float)) and not isinstance(text, bool):
        return str(text)
    if not isinstance(text, str):
        message = f"{key!r} is {_type_name(text)}, not text"
        fix = f'write it as text: "{str(text).lower()}"' if isinstance(text, bool) else "write text"
        raise BadRecord("WrongType", message, fix, key)
    return text if may_be_empty else require_text(text, repr(key), key)


def _type_name(value: object) -> str:
    names = {dict: "an object", list: "a list", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def join_pair(record: Record) -> tuple[str, str]:
    """Return a conversation of one question and one answer as prompt and completion.

    A system prompt is put before the question, with a blank line between them. Raises BadRecord
    (LosesTurns) if there are more turns.
    """
    assert isinstance(record, Conversation)
    if len(record.turns) != 2:
        message = f"{len(record.turns)} turns do not fit into one prompt and one completion"
        fix = "keep one question and one answer a record, or choose a base model that takes chats"
        raise BadRecord("LosesTurns", message, fix, "messages")
    question, answer = record.turns
    prompt = "\n\n".join(["\n".join(record.system)] * bool(record.system) + [question.text])
    return prompt, answer.text


def describe_keys(*keys: str) -> Callable[[Sequence[RawRecord]], str]:
    """Return a `RecordFormat.describe` that names the keys: they alone show the format."""
    names = " and ".join([", ".join(map(repr, keys[:-1]))] * (len(keys) > 1) + [repr(keys[-1])])
    return lambda _: f"records with the {'key' if len(keys) == 1 else 'keys'} {names}"
