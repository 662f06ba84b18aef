"""Collect hashes of the records of one role: what repeats is found by them, and where."""

from __future__ import annotations

import sys
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Literal

from xxhash import xxh3_64_digest

from cloudft.data.analysis.text_keys import normalize_text, split_record
from cloudft.data.formats.fast_path import RecordBatch
from cloudft.data.formats.record import Record
from cloudft.data.sources.source_files import SourceFile

MAX_NORMALIZED_CHARACTERS = 16_000_000
"""Characters of a role's prompts up to which they are also hashed without case and white space.
That takes longer than everything else in a check: in larger data they are compared exactly."""
MAX_NORMALIZED_BYTES = 4 * MAX_NORMALIZED_CHARACTERS
"""Bytes of a role's files above which normalizing is not begun."""
HASH_BYTES = 8
CODE_POINTS: Literal["u", "w"] = "w" if sys.version_info >= (3, 13) else "u"
"""The type code of an array of code points."""


@dataclass
class RecordKeys:
    """The 64-bit hashes (XXH3) of the prompts and the answers of some files' records, in order.

    Takes 16 bytes a record, and 8 more while prompts are normalized; and 16 bytes for each run of
    records that are on consecutive lines.
    Comparing them takes half as much again for a moment. `normalized` is None when the prompts are
    not hashed so.
    """

    prompts: array[int] = field(default_factory=lambda: array("Q"))
    answers: array[int] = field(default_factory=lambda: array("Q"))
    normalized: array[int] | None = None
    _characters: int = 0
    _files: list[tuple[int, str]] = field(default_factory=list)
    _run_starts: array[int] = field(default_factory=lambda: array("Q"))
    _run_lines: array[int] = field(default_factory=lambda: array("Q"))
    _next_line: int = -1

    @classmethod
    def for_files(cls, sources: Iterable[SourceFile], *, is_compared: bool) -> RecordKeys:
        """Return keys for a role with these files, without records yet.

        With `is_compared` prompts are normalized unless the files are large: leaks are to be found.
        """
        size = 0
        for source in sources:
            with suppress(OSError):  # an object in S3, or a file that is gone
                size += source.path.stat().st_size
        is_normalized = is_compared and size <= MAX_NORMALIZED_BYTES
        return cls(normalized=array("Q") if is_normalized else None)

    def __len__(self) -> int:
        return len(self.prompts)

    def start_file(self, name: str) -> None:
        """Say which file the next records are from."""
        self._files.append((len(self), name))
        self._next_line = -1

    def add_record(self, record: Record, line: int) -> None:
        """Add one record."""
        prompt, answer = split_record(record)
        self._add_lines((line,))
        self._add_prompts([prompt])
        self.answers.frombytes(_digests([answer]))

    def add_batch(self, batch: RecordBatch, lines: Sequence[int]) -> None:
        """Add a block of plain records; `lines` has the line of each."""
        self._add_lines(lines)
        self._add_prompts(batch.prompts)
        self.answers.frombytes(_digests(batch.completions or [""] * len(batch)))

    def _add_prompts(self, prompts: Sequence[str]) -> None:
        self.prompts.frombytes(_digests(prompts))
        if self.normalized is None:
            return
        self._characters += sum(map(len, prompts))
        if self._characters > MAX_NORMALIZED_CHARACTERS:
            self.normalized = None
        else:
            self.normalized.frombytes(_digests(list(map(normalize_text, prompts))))

    def _add_lines(self, lines: Sequence[int]) -> None:
        if isinstance(lines, range) and lines.step == 1:
            self._add_run(len(self), lines.start, len(lines))
            return
        for index, line in enumerate(lines, len(self)):
            self._add_run(index, line, 1)

    def _add_run(self, index: int, line: int, count: int) -> None:
        if line != self._next_line:
            self._run_starts.append(index)
            self._run_lines.append(line)
        self._next_line = line + count

    def locate(self, index: int) -> tuple[str, int]:
        """Return file and line of a record by its number from 0."""
        file = bisect_right(self._files, index, key=lambda entry: entry[0]) - 1
        run = bisect_right(self._run_starts, index) - 1
        return self._files[file][1], self._run_lines[run] + index - self._run_starts[run]

    def to_bytes(self) -> bytes:
        """Return the hashes, for `merge_lines` in another process."""
        return self.prompts.tobytes() + self.answers.tobytes()

    def merge_lines(self, parts: Iterable[bytes]) -> None:
        """Add the `to_bytes` of a file's parts: each line of the file has one record."""
        for raw in parts:
            half = len(raw) // 2
            self._add_run(len(self), max(self._next_line, 1), half // HASH_BYTES)
            self.prompts.frombytes(raw[:half])
            self.answers.frombytes(raw[half:])
        self.normalized = None


def _digests(texts: Sequence[str]) -> bytes:
    """Return the hashes of some texts, one after another.

    Texts beyond ASCII are hashed as arrays of code points: three times as fast as encoding them.
    """
    if all(map(str.isascii, texts)):
        return b"".join(map(xxh3_64_digest, map(str.encode, texts)))
    return b"".join(
        [xxh3_64_digest(t.encode() if t.isascii() else array(CODE_POINTS, t)) for t in texts]
    )
