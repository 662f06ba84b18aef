"""Encode staged records as examples, one block of lines at a time.

Truncated records are counted here, and refused above the job's threshold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from local_backend.data.chat_messages import Record
from local_backend.data.examples import EncodedData
from local_backend.data.text_tokens import Segment, tokenize_segments
from local_backend.data.token_arrays import TokenArrays
from local_backend.errors import TrainerError
from local_backend.file_digest import sha256_file
from local_backend.settings import DataFile, GraderFile, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Record], list[Segment]]
"""Makes the text of a record (Objective.render)."""
Rendered = TypeVar("Rendered")
BLOCK_BYTES = 1 << 20
"""Bytes of a staged file that are encoded together, up to the end of their last line."""


@dataclass(frozen=True)
class StagedLines:
    """Consecutive lines of a staged file, from byte `start` up to `end`.

    `first` is the number of the first one; a file begins with line 1.
    """

    path: Path
    start: int
    end: int
    first: int
    count: int

    def records(self) -> Iterator[Record]:
        """Yield the canonical records."""
        with self.path.open("rb") as stream:
            stream.seek(self.start)
            for _ in range(self.count):
                yield json.loads(stream.readline())


def split_into_blocks(path: Path, size: int = BLOCK_BYTES) -> Iterator[StagedLines]:
    """Yield the lines of a staged file in blocks of about `size` bytes, in order."""
    start, first = 0, 1
    with path.open("rb") as stream:
        while chunk := stream.read(size):
            chunk += stream.readline()  # up to the end of the line that `size` falls into
            count = chunk.count(b"\n") + (not chunk.endswith(b"\n"))
            yield StagedLines(path, start, start + len(chunk), first, count)
            start, first = start + len(chunk), first + count


def verify_digest(file: DataFile | GraderFile) -> None:
    """Raise TrainerError unless a staged file is exactly what the job was submitted with."""
    try:
        digest = sha256_file(file.path)
    except OSError as error:
        raise TrainerError(
            f"The staged file {file.path} can't be read: {error.strerror}."
        ) from error
    if digest != file.sha256:
        raise TrainerError(
            f"The staged file {file.path} was changed after it was staged.",
            fix="submit the job again to stage the data again.",
        )


def read_records(path: Path) -> Iterator[Record]:
    """Yield the canonical records of a staged file."""
    with path.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def encode_lines(
    lines: StagedLines, render: Render, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> EncodedData:
    """Return one example of at most `max_length` tokens for each record.

    Raise TrainerError for a record that is refused.
    """
    encoded = EncodedData([], lines.count)
    for ids, loss_mask in tokenize_segments(render_records(lines, render), tokenizer):
        encoded.add(ids, loss_mask, max_length)
    return encoded


def render_records(lines: StagedLines, render: Callable[[Record], Rendered]) -> Iterator[Rendered]:
    """Yield the text of each record. Raise TrainerError with the line of one that is refused."""
    for line, record in enumerate(lines.records(), start=lines.first):
        try:
            yield render(record)
        except TrainerError as error:
            raise TrainerError(
                f"{lines.path.name}, line {line}: {error.message}", fix=error.fix
            ) from error


def check_truncation(encoded: EncodedData, name: str, settings: Settings, max_length: int) -> None:
    """Raise TrainerError if too many records were cut or left without an answer."""
    affected = max(encoded.truncated, encoded.masked)
    if not encoded.examples or affected > settings.max_truncated_share * encoded.records:
        raise TrainerError(
            f"{encoded.truncated} of {encoded.records} records of {name} are longer than"
            f" {max_length} tokens and were cut, {encoded.masked} lost their whole answer; the"
            f" allowed share is {settings.max_truncated_share:g} (local.max_truncated_share).",
            fix=f"raise local.max_length (the longest record has {encoded.longest} tokens), shorten"
            " the records, or raise local.max_truncated_share.",
        )


def pack_documents(blocks: Iterable[EncodedData], length: int) -> Iterator[EncodedData]:
    """Yield documents as sequences of exactly `length` tokens (the last one shorter).

    Every token carries loss. Documents follow each other, over the ends of blocks too; none is cut
    off.
    """
    rest = np.empty(0, dtype=np.int32)
    for block in blocks:
        documents = TokenArrays.of(block.examples)
        rest = np.concatenate([rest, documents.ids])
        longest = int(documents.lengths.max(initial=0))
        packed = EncodedData([], block.records, longest=longest)
        whole = len(rest) - len(rest) % length
        for start in range(0, whole, length):
            packed.add_packed_sequence(rest[start : start + length])
        rest = rest[whole:]
        yield packed
    if len(rest) > 1:  # a single token has nothing before it that predicts it
        last = EncodedData([], 0)
        last.add_packed_sequence(rest)
        yield last
