"""Encode staged records as examples.

Truncated records are counted here, and refused above the job's threshold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from local_backend.data.chat_messages import Record
from local_backend.data.examples import EncodedData
from local_backend.data.text_tokens import Segment, tokenize_segments
from local_backend.errors import TrainerError
from local_backend.file_digest import sha256_file
from local_backend.settings import DataFile, GraderFile, Settings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Render = Callable[[Record], list[Segment]]
"""Makes the text of a record (Objective.render)."""
Rendered = TypeVar("Rendered")


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


def encode_records(
    file: DataFile,
    render: Render,
    settings: Settings,
    tokenizer: PreTrainedTokenizerBase,
    max_length: int,
) -> EncodedData:
    """Return one example of at most `max_length` tokens for each record of a file.

    Raise TrainerError if more records were cut, or lost their whole answer, than
    `max_truncated_share` allows.
    """
    encoded = EncodedData([], file.records)
    for ids, loss_mask in tokenize_segments(render_records(file.path, render), tokenizer):
        encoded.add(ids, loss_mask, max_length)
    check_truncation(encoded, file.path.name, settings, max_length)
    return encoded


def render_records(path: Path, render: Callable[[Record], Rendered]) -> Iterator[Rendered]:
    """Yield the text of each record. Raise TrainerError with the line of one that is refused."""
    for line, record in enumerate(read_records(path), start=1):
        try:
            yield render(record)
        except TrainerError as error:
            raise TrainerError(
                f"{path.name}, line {line}: {error.message}", fix=error.fix
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


def pack_documents(documents: Iterable[list[int]], records: int, length: int) -> EncodedData:
    """Return documents as sequences of exactly `length` tokens (the last one shorter).

    Every token carries loss. Documents follow each other; none is cut off.
    """
    encoded = EncodedData([], records)
    rest = np.empty(0, dtype=np.int32)
    for ids in documents:
        encoded.longest = max(encoded.longest, len(ids))
        rest = np.concatenate([rest, np.array(ids, dtype=np.int32)])
        while len(rest) >= length:
            encoded.add_packed_sequence(rest[:length])
            rest = rest[length:]
    if len(rest) > 1:  # a single token has nothing before it that predicts it
        encoded.add_packed_sequence(rest)
    return encoded
