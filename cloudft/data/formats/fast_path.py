"""The fast path: a block of plain records of one shape, decoded and encoded at once.

`decode` gives up (None) on a block in which anything is unusual: that block then goes line by line
through read.py and convert.py, which find the words for it. A property test holds the two equal:
what passes here has no finding there, and says the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Any

import msgspec

from cloudft.data.formats.registry import CONVERSE_SCHEMA_VERSION, UNLABELED_FORMATS

PAIR_KEYS = {"prompt-completion": ("prompt", "completion"), "input-output": ("input", "output")}
TEXT_KEYS = {"input": "input", "text": "text"}
QUOTE, BACKSLASH = 34, 92


@dataclass(frozen=True)
class RecordBatch:
    """What the records of a block say, field by field. `answered` is empty for unlabelled text.

    `characters` counts those of all texts; no record has more than `longest`.
    """

    prompts: list[str]
    completions: list[str]
    characters: int
    max_characters: int

    def record_lengths(self) -> list[int]:
        """The characters of each record's texts."""
        if not self.completions:
            return list(map(len, self.prompts))
        return list(map(add, map(len, self.prompts), map(len, self.completions)))

    def __len__(self) -> int:
        return len(self.prompts)


class _Decoder:
    """Decodes blocks of records with exactly `keys`, each a text."""

    def __init__(self, keys: Sequence[str]) -> None:
        struct = msgspec.defstruct(
            "Fast", [(key, str) for key in keys], forbid_unknown_fields=True, gc=False
        )
        self._decoder = msgspec.json.Decoder(struct)
        self._columns = [attrgetter(key) for key in keys]
        self._quotes = 4 * len(keys)

    def decode(self, raw: bytes, lines: int) -> RecordBatch | None:
        """The columns, or None."""
        try:
            records = self._decoder.decode_lines(raw)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if len(records) != lines or b"\r" in raw or not has_quote_count(raw, self._quotes * lines):
            return None  # blank lines, Windows line ends, keys that stand twice
        columns = [list(map(column, records)) for column in self._columns]
        if not all(all(map(str.strip, texts)) for texts in columns):
            return None  # nothing but spaces
        sizes = [list(map(len, texts)) for texts in columns]
        answered = columns[1] if len(columns) > 1 else []
        return RecordBatch(columns[0], answered, sum(map(sum, sizes)), sum(map(max, sizes)))


def has_quote_count(raw: bytes, expected: int) -> bool:
    """True when just so many quotes in these JSON lines begin or end a string.

    Each key and each text has two; a key that stands twice brings more.
    """
    import numpy as np

    codes = np.frombuffer(raw, np.uint8)
    quotes = codes == QUOTE
    count = int(np.count_nonzero(quotes))
    if count == expected or b"\\" not in raw:
        return count == expected
    backslashes = codes == BACKSLASH
    escaped = quotes[1:] & backslashes[:-1]
    # A backslash escapes what follows it unless it is escaped itself: an odd run escapes.
    doubtful = np.flatnonzero(escaped[1:] & backslashes[:-2])
    even = sum(_run_ending_at(raw, int(at) + 1) % 2 == 0 for at in doubtful)
    return count - int(np.count_nonzero(escaped)) + even == expected


def _run_ending_at(raw: bytes, at: int) -> int:
    """The length of the run of backslashes that ends there."""
    start = at
    while start >= 0 and raw[start] == BACKSLASH:
        start -= 1
    return at - start


_DECODERS: dict[str, _Decoder] = {}


def decode_batch(format: str, raw: bytes, lines: int) -> RecordBatch | None:
    """The `lines` records of a block of that shape; None when it is not plain all through."""
    keys = PAIR_KEYS.get(format) or ((TEXT_KEYS[format],) if format in TEXT_KEYS else ())
    if not keys:
        return None
    if format not in _DECODERS:
        _DECODERS[format] = _Decoder(keys)
    return _DECODERS[format].decode(raw, lines)


def can_encode(columns: RecordBatch, target: str) -> bool:
    """True when such records may be written in format `target`."""
    if target not in _RECORDS:
        return False
    return (target in UNLABELED_FORMATS) != bool(columns.completions)


class _Text(msgspec.Struct, gc=False):
    text: str


class _Message(msgspec.Struct, gc=False):
    role: str
    content: Any


class _Chat(msgspec.Struct, gc=False):
    messages: tuple[_Message, _Message]


class _Converse(msgspec.Struct, gc=False):
    schemaVersion: str
    messages: tuple[_Message, _Message]


class _Pair(msgspec.Struct, gc=False):
    prompt: str
    completion: str


class _InputOutput(msgspec.Struct, gc=False):
    input: str
    output: str


class _Input(msgspec.Struct, gc=False):
    input: str


class _PlainText(msgspec.Struct, gc=False):
    text: str


def _converse(asked: str, answered: str) -> _Converse:
    user, assistant = _Message("user", (_Text(asked),)), _Message("assistant", (_Text(answered),))
    return _Converse(CONVERSE_SCHEMA_VERSION, (user, assistant))


def _claude(asked: str, answered: str) -> _Chat:
    return _Chat((_Message("user", asked), _Message("assistant", answered)))


_RECORDS: dict[str, Callable[..., Any]] = {
    "prompt-completion": _Pair,
    "converse": _converse,
    "distillation": _converse,
    "claude-messages": _claude,
    "messages": _claude,
    "input-output": _InputOutput,
    "input": _Input,
    "text": _PlainText,
}
_ENCODER = msgspec.json.Encoder()


def encode_batch(columns: RecordBatch, target: str) -> bytes:
    """The canonical lines, byte for byte those of convert.canonical."""
    fields = (columns.prompts, columns.completions) if columns.completions else (columns.prompts,)
    return _ENCODER.encode_lines(list(map(_RECORDS[target], *fields)))
