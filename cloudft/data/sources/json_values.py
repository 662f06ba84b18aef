r"""Read JSON values that are not one a line: an array's elements, or values one after another.

Streams: a block of the file is held, or its longest value. Where the last whole value of a block
ends is guessed, by the bytes between the first two values (`},\n  {"`). Decoding the block proves
the guess, since only whole values can be decoded: that costs nothing. Where the guess is wrong,
json_scan.py finds the end.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterator, Sequence
from functools import cached_property
from typing import Literal, overload

from cloudft.data.sources.json_scan import is_value_start, scan_values, skip_space
from cloudft.data.sources.line_blocks import count_newlines

_BETWEEN = re.compile(rb'[}\]]\s*,?\s*[{\[][{\[\s]*"')
_STRING_REST = re.compile(rb'(?:[^"\\]|\\.)*"')
_SEPARATOR = re.compile(rb"\s*,?\s*")
Reason = Literal["cut off", "too long", "comma", "trailing comma", "no value"]
"""The file ends within a value or the array, a value is too long, a comma is missing or one too
many, or something is no value."""


class BrokenValues(Exception):
    """A file's values can't be separated from here on: `rest` is what is there, as far as read."""

    def __init__(self, reason: Reason, line: int, column: int, rest: bytes) -> None:
        super().__init__(reason)
        self.reason, self.line, self.column, self.rest = reason, line, column, rest


class ValueBlock:
    """Some values of a file, with what separates them.

    `first_line` (from 1) and `column` (in bytes, from 0) are where `raw` begins. `is_proven` is
    False while its end is a guess; what decodes the block sets it.
    """

    def __init__(
        self, raw: bytes, line: int, column: int, spans: list[tuple[int, int]], *, in_array: bool
    ) -> None:
        self.raw, self.first_line, self.column = raw, line, column
        self.in_array, self._spans = in_array, spans
        self.is_proven = bool(spans)

    def split(self) -> list[tuple[int, bytes]]:
        """Return each value with its position in `raw`; none if the guess was wrong."""
        if self._spans:
            return [(start, self.raw[start:end]) for start, end in self._spans]
        found, at = [], 0
        for value in self._decode():
            found.append((at, value))
            separator = _SEPARATOR.match(self.raw, at + len(value))
            assert separator is not None  # it matches the empty text
            at = separator.end()
        self.is_proven = bool(found)
        return found

    def record_lines(self) -> Sequence[int]:
        """Return the line in which each value begins, counted only if one is needed."""
        return _ValueLines(self)

    def _decode(self) -> list[bytes]:
        """Return the bytes of each value; none if they are not all whole and valid."""
        import msgspec

        try:
            if self.in_array:
                raw = b"".join((b"[", self.raw, b"]"))
                return list(map(bytes, msgspec.json.decode(raw, type=list[msgspec.Raw])))
            return list(map(bytes, msgspec.json.Decoder(msgspec.Raw).decode_lines(self.raw)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return []


class _ValueLines(Sequence[int]):
    """The lines of a block's values."""

    def __init__(self, block: ValueBlock) -> None:
        self._block = block

    @cached_property
    def _lines(self) -> list[int]:
        lines, line, at = [], self._block.first_line, 0
        for start, _ in self._block.split():
            line += self._block.raw.count(b"\n", at, start)
            at = start
            lines.append(line)
        return lines

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> list[int]: ...
    def __getitem__(self, index: int | slice) -> int | list[int]:
        return self._lines[index]

    def __len__(self) -> int:
        return len(self._lines)


class ValueReader:
    """Reads the values of a file. `line` and `column` are where it is.

    `tail` is what was read behind the end of the array.
    """

    def __init__(self, max_bytes: int, line: int, column: int, *, in_array: bool) -> None:
        self.line, self.column, self.tail = line, column, b""
        self._max_bytes, self._in_array = max_bytes, in_array
        self._signatures: list[bytes] | None = None
        self._needs_comma = self._is_closed = False

    def read(self, pieces: Iterator[bytes]) -> Iterator[ValueBlock]:
        """Yield the blocks of a file, which begins behind the bracket that opens the array.

        Stops at the end of the array. Raises BrokenValues.
        """
        pending: list[bytes] = []
        size = needed = 0
        for piece in pieces:
            pending.append(piece)
            size += len(piece)
            if size < needed:
                continue
            rest = yield from self._take(b"".join(pending), is_last=False)
            if self._is_closed:
                self.tail = rest
                return
            if len(rest) > self._max_bytes:
                raise BrokenValues("too long", self.line, self.column, rest)
            # A value that is longer than all pieces: they are joined again when there are twice as
            # many, so that the time stays linear.
            needed = 2 * size if len(rest) == size else 0
            pending, size = [rest], len(rest)
        rest = yield from self._take(b"".join(pending), is_last=True)
        if self._is_closed:
            self.tail = rest
        elif rest or self._in_array:
            raise BrokenValues("cut off", self.line, self.column, rest)

    def _take(self, raw: bytes, *, is_last: bool) -> Generator[ValueBlock, None, bytes]:
        """Yield the whole values at the start of `raw`, and return the rest."""
        while True:
            raw, is_ready = self._skip_separator(raw)
            if not is_ready:
                return raw
            end, spans = self._guess_end(raw), []
            if not end:
                spans = scan_values(raw, in_array=self._in_array, is_last=is_last)
                if not spans and not is_value_start(raw):
                    raise self._broken("no value", raw, 0)
                if not spans:
                    return raw
                end = spans[-1][1]
                if self._signatures is None and len(spans) > 1:
                    self._signatures = _find_signatures(raw, spans[0][1])
            block = ValueBlock(raw[:end], self.line, self.column, spans, in_array=self._in_array)
            yield block
            if not block.is_proven:
                assert self._signatures is not None
                del self._signatures[0]
                continue
            raw = self._advance(raw, end)
            self._needs_comma = self._in_array
            if not spans and not is_last:
                return raw  # what follows is most likely not whole: wait for the next piece

    def _skip_separator(self, raw: bytes) -> tuple[bytes, bool]:
        """Return what follows the separator, and whether that is the start of a value."""
        at = skip_space(raw, 0)
        here = raw[at : at + 1]
        if self._in_array and here == b"]":
            self._is_closed = True
            return self._advance(raw, at + 1), False
        if self._needs_comma and here:
            if here != b",":
                raise self._broken("comma", raw, at)
            after = skip_space(raw, at + 1)
            if raw[after : after + 1] == b"]":
                raise self._broken("trailing comma", raw, at)
            if after == len(raw):
                return self._advance(raw, at), False
            at, self._needs_comma = after, False
        raw = self._advance(raw, at)
        return raw, bool(raw)

    def _advance(self, raw: bytes, end: int) -> bytes:
        """Count the lines and columns of what has been read; return the rest."""
        read = raw[:end]
        newlines = count_newlines(read)
        self.line += newlines
        self.column = end - read.rfind(b"\n") - 1 if newlines else self.column + end
        return raw[end:]

    def _broken(self, reason: Reason, raw: bytes, at: int) -> BrokenValues:
        rest = self._advance(raw, at)
        return BrokenValues(reason, self.line, self.column, rest)

    def _guess_end(self, raw: bytes) -> int:
        """Return where the last value ends that another one follows; 0 if there is no guess."""
        return raw.rfind(self._signatures[0]) + 1 if self._signatures else 0


def _find_signatures(raw: bytes, end: int) -> list[bytes]:
    """Return the bytes around the end of a value, up to the next one's first quote and first key.

    The first is shorter, and holds for records with other keys; it also occurs within a record
    that holds a list of objects in the same layout.
    """
    match = _BETWEEN.match(raw, end - 1)
    if match is None:
        return []
    key = _STRING_REST.match(raw, match.end())
    return [match[0], match[0] + key[0]] if key else [match[0]]
