"""The fast path: a block of plain records of one format, decoded and encoded at once.

It exists because most data is flat JSONL of one format, and msgspec decodes a block of it some ten
times faster than records can be parsed singly in Python. `decode_batch` gives up (None) on a
block in which anything is unusual; that block then goes line by line through row_reader.py and
registry.py, which know the messages for it. A property test holds the two equal: what passes here
has no finding there, and gives the same records.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import add, attrgetter
from typing import Any

import msgspec

from cloudft.data.formats.chat_fast_path import CHAT_DECODERS, PlainChat, record_decoder
from cloudft.data.formats.registry import encode_record, find_format, get_format
from cloudft.data.sources.line_blocks import is_numpy_worthwhile

QUOTE, BACKSLASH = 34, 92
CHAT_TARGETS = frozenset({"messages", "converse", "claude-messages"})
"""Formats that hold any plain chat."""
_BACKSLASHES_AND_QUOTE = re.compile(rb'\\+"')


@dataclass(frozen=True)
class RecordBatch:
    """The texts of a block's records, by field. `completions` is empty for unlabeled text.

    `characters` counts those of all texts; no record has more than `max_characters`.
    """

    prompts: list[str]
    completions: list[str]
    characters: int
    max_characters: int
    chats: Sequence[PlainChat] = ()
    """Chats, where the records are these: `prompts` then holds all but each one's last answer."""
    chat_format: str = ""

    def record_lengths(self) -> list[int]:
        """Return the characters of each record's texts."""
        if self.chats:
            return [sum(map(len, chat.texts())) for chat in self.chats]
        if not self.completions:
            return list(map(len, self.prompts))
        return list(map(add, map(len, self.prompts), map(len, self.completions)))

    def __len__(self) -> int:
        return len(self.prompts)


class _Decoder:
    """Decode blocks of records with exactly `keys`, each a text."""

    def __init__(self, keys: Sequence[str]) -> None:
        # gc=False: the structs hold no cycles, and the collector would walk over all of them.
        struct = msgspec.defstruct(
            "BatchRecord", [(key, str) for key in keys], forbid_unknown_fields=True, gc=False
        )
        self._decode = record_decoder(struct)
        self._getters: list[Callable[[Any], str]] = [attrgetter(key) for key in keys]
        self._quotes_per_record = 4 * len(keys)

    def decode(self, raw: bytes, lines: int | None, in_array: bool) -> RecordBatch | None:
        """Return the records' texts, or None if one is anything but a plain record."""
        try:
            records = self._decode(raw, in_array)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        if not _has_plain_lines(raw, lines, len(records)) or not has_quote_count(
            raw, self._quotes_per_record * len(records)
        ):
            return None
        columns = [list(map(getter, records)) for getter in self._getters]
        if any(map(_has_blank, columns)):
            return None  # a blank text is an error
        return _to_batch(columns)


def _has_blank(texts: Sequence[str]) -> bool:
    return not all(texts) or any(map(str.isspace, texts))


def has_quote_count(raw: bytes, expected: int) -> bool:
    """Return whether exactly `expected` quotes delimit strings in these JSON lines.

    Each key and each text has two; a key that is repeated brings more.
    """
    if is_numpy_worthwhile(raw):
        return _has_quote_count_large(raw, expected)
    runs = _BACKSLASHES_AND_QUOTE.findall(raw) if b"\\" in raw else []
    # An odd run of backslashes escapes the quote after it; `len(run)` counts the quote too.
    return raw.count(b'"') - sum(len(run) % 2 == 0 for run in runs) == expected


def _has_quote_count_large(raw: bytes, expected: int) -> bool:
    import numpy as np

    codes = np.frombuffer(raw, np.uint8)
    quotes = codes == QUOTE
    count = int(np.count_nonzero(quotes))
    if count == expected or b"\\" not in raw:
        return count == expected
    backslashes = codes == BACKSLASH
    escaped = quotes[1:] & backslashes[:-1]
    # A backslash escapes what follows it unless it is escaped itself. Only quotes behind two
    # backslashes are in doubt, and those are rare: their runs are counted in Python.
    doubtful = np.flatnonzero(escaped[1:] & backslashes[:-2])
    even = sum(_run_ending_at(raw, int(at) + 1) % 2 == 0 for at in doubtful)
    return count - int(np.count_nonzero(escaped)) + even == expected


def _run_ending_at(raw: bytes, at: int) -> int:
    """Return the length of the run of backslashes that ends at `at`."""
    start = at
    while start >= 0 and raw[start] == BACKSLASH:
        start -= 1
    return at - start


def _has_plain_lines(raw: bytes, lines: int | None, records: int) -> bool:
    """Return whether each line has a record, and none ends in CR LF: both have findings.

    decode_lines skips blank lines. `lines` is None for values that are not one a line.
    """
    return lines is None or (records == lines and b"\r" not in raw)


_decoders: dict[tuple[str, ...], _Decoder] = {}


def decode_batch(format: str, raw: bytes, lines: int) -> RecordBatch | None:
    """Return the `lines` records of a block in that format; None if one of them is not plain."""
    return _decode(format, raw, lines, in_array=False)


def decode_values(format: str, raw: bytes, *, in_array: bool) -> RecordBatch | None:
    """Return the records of a block that has not one a line; None if one is not plain.

    They are an array's elements, or objects one after another.
    """
    return _decode(format, raw, None, in_array=in_array)


def _decode(format: str, raw: bytes, lines: int | None, *, in_array: bool) -> RecordBatch | None:
    if format in CHAT_DECODERS:
        return _decode_chats(format, raw, lines, in_array)
    record_format = find_format(format)
    if record_format is None or not record_format.text_keys:
        return None
    return _get_decoder(record_format.text_keys).decode(raw, lines, in_array)


def _get_decoder(keys: tuple[str, ...]) -> _Decoder:
    if keys not in _decoders:
        _decoders[keys] = _Decoder(keys)
    return _decoders[keys]


def make_batch(
    format: str,
    columns: Mapping[str, str],
    names: Sequence[str],
    rows: Sequence[Sequence[str]],
) -> RecordBatch | None:
    """Return the rows of a table as records of that format; None if one of them is not plain.

    `names` are the table's columns, `columns` those that the user named, by canonical key.
    """
    record_format = find_format(format)
    keys = record_format.text_keys if record_format else ()
    if not keys or set(columns or names) != set(keys):
        return None
    positions = {name: at for at, name in enumerate(names)}
    taken = [positions.get(columns.get(key, key)) for key in keys]
    if None in taken:
        return None
    texts = [[row[at] for row in rows] for at in taken if at is not None]
    if any(map(_has_blank, texts)):
        return None  # a blank text is an error
    return _to_batch(texts)


def _to_batch(columns: Sequence[list[str]]) -> RecordBatch:
    sizes = [list(map(len, texts)) for texts in columns]
    completions = columns[1] if len(columns) > 1 else []
    return RecordBatch(columns[0], completions, sum(map(sum, sizes)), sum(map(max, sizes)))


def _decode_chats(format: str, raw: bytes, lines: int | None, in_array: bool) -> RecordBatch | None:
    """Return a block of plain chats; None if one of them is not plain."""
    try:
        decoded = CHAT_DECODERS[format](raw, in_array)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if (
        decoded is None
        or not _has_plain_lines(raw, lines, len(decoded.chats))
        or not has_quote_count(raw, decoded.quotes)
    ):
        return None
    texts = [chat.texts() for chat in decoded.chats]
    if any(map(_has_blank, texts)):
        return None
    lengths = [sum(map(len, parts)) for parts in texts]
    answers = ["\n".join(chat.turns[-1]) for chat in decoded.chats]
    # NUL: no word of a text may span two of them.
    prompts = [
        "\0".join(parts[: -len(chat.turns[-1])])
        for parts, chat in zip(texts, decoded.chats, strict=True)
    ]
    return RecordBatch(prompts, answers, sum(lengths), max(lengths), decoded.chats, format)


def can_encode(batch: RecordBatch, target: str) -> bool:
    """Return whether such records may be written in format `target`."""
    format = find_format(target)
    if batch.chats:
        return target in CHAT_TARGETS
    if format is None or format.batch_record is None:
        return False
    return format.is_labeled == bool(batch.completions)


_ENCODER = msgspec.json.Encoder()


def encode_batch(batch: RecordBatch, target: str) -> bytes:
    """Return the canonical lines, byte for byte those of registry.encode_record."""
    if batch.chats:
        conversations = (chat.to_conversation(batch.chat_format) for chat in batch.chats)
        return b"".join([encode_record(record, target)[0] for record in conversations])
    build = get_format(target).batch_record
    assert build is not None, f"{target} has no batch_record: see can_encode"
    columns = (batch.prompts, batch.completions) if batch.completions else (batch.prompts,)
    return _ENCODER.encode_lines(list(map(build, *columns)))
