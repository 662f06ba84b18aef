"""Staged records as token ids, and the order in which they are learned.

The order of an epoch follows from the seed and the epoch's number alone, so a resumed run needs no
memory of it. What had to be cut is counted here and refused above the job's threshold.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch

from local_backend.data.chat_template import Segment, split_turns, to_messages
from local_backend.errors import TrainerError
from local_backend.models.load_model import LoadedModel
from local_backend.settings import DataFile, Settings

IGNORE_INDEX = -100
TOKENIZE_BATCH = 1000
"""Records tokenised in one call: enough to keep the tokenizer's threads busy, little memory."""
DEFAULT_SEQUENCE_LENGTH = 1024
"""Default length of packed sequences: long enough to learn from, short enough for a CPU."""


@dataclass(frozen=True)
class Example:
    """One training sequence: `ids` of shape [length], `learned` of the same shape (bool)."""

    ids: np.ndarray
    loss_mask: np.ndarray


@dataclass
class EncodedData:
    """The examples of one file, with what happened to its records on the way."""

    examples: list[Example]
    records: int
    tokens: int = 0
    loss_tokens: int = 0
    truncated: int = 0
    masked: int = 0
    longest: int = 0

    def summary(self) -> dict[str, int]:
        """The counts, as they go into the job's summary."""
        return {
            "records": self.records,
            "sequences": len(self.examples),
            "tokens": self.tokens,
            "learnedTokens": self.loss_tokens,
            "truncatedRecords": self.truncated,
            "maskedRecords": self.masked,
            "longestRecordTokens": self.longest,
        }


def verify_digest(file: DataFile) -> None:
    """Refuse a staged file that is not, byte for byte, what the job was submitted with."""
    digest = hashlib.sha256()
    try:
        with file.path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise TrainerError(
            f"The staged file {file.path} can't be read: {error.strerror}."
        ) from error
    if digest.hexdigest() != file.sha256:
        raise TrainerError(
            f"The staged file {file.path} was changed after it was staged.",
            fix="submit the job again; it is staged anew.",
        )


def resolve_max_length(settings: Settings, loaded: LoadedModel) -> int:
    """The length that sequences are cut or packed to; refuses more than the model was made for."""
    context = loaded.context_length
    if settings.max_length is None:
        return context if settings.is_supervised else min(context, DEFAULT_SEQUENCE_LENGTH)
    if settings.max_length > context:
        raise TrainerError(
            f"local.max_length is {settings.max_length}, and {settings.model_name} was made for"
            f" {context} tokens.",
            fix=f"set it to {context} or less.",
        )
    return settings.max_length


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The canonical records of a staged file."""
    with path.open("rb") as stream:
        for line in stream:
            yield json.loads(line)


def encode_file(
    file: DataFile, settings: Settings, loaded: LoadedModel, max_length: int
) -> EncodedData:
    """The file as examples of at most `max_length` tokens.

    Raises TrainerError when more records were cut, or lost their whole answer, than
    `max_truncated_share` allows.
    """
    if not settings.is_supervised:
        return pack_documents(file, loaded, max_length)
    encoded = EncodedData([], file.records)
    for ids, learned in tokenize_segments(render_records(file, settings, loaded), loaded.tokenizer):
        add_example(encoded, ids, learned, max_length)
    check_truncation(encoded, file.path.name, settings, max_length)
    return encoded


def render_records(
    file: DataFile, settings: Settings, loaded: LoadedModel
) -> Iterator[list[Segment]]:
    """Each record of the file as pieces of text, learned and not."""
    stops = loaded.stop_texts
    for record in read_records(file.path):
        yield split_turns(loaded.tokenizer, to_messages(record, settings.format), stops)


def tokenize_segments(
    conversations: Iterable[list[Segment]], tokenizer: Any
) -> Iterator[tuple[list[int], list[bool]]]:
    """Token ids and learned marks of each conversation; pieces are tokenised apart.

    While one block of records is tokenised the next one is made into text.
    """
    stream = iter(conversations)
    with ThreadPoolExecutor(1) as pool:
        before: tuple[list[list[Segment]], Future[list[list[int]]]] | None = None
        while block := list(islice(stream, TOKENIZE_BATCH)):
            texts = [text for pieces in block for text, _ in pieces]
            parts = pool.submit(tokenize_batch, tokenizer, texts)
            if before:
                yield from concat_segments(before[0], before[1].result())
            before = block, parts
        if before:
            yield from concat_segments(before[0], before[1].result())


def concat_segments(
    block: Sequence[list[Segment]], ids_of_pieces: Iterable[list[int]]
) -> Iterator[tuple[list[int], list[bool]]]:
    """The pieces of each conversation one behind the other."""
    parts = iter(ids_of_pieces)
    for pieces in block:
        ids: list[int] = []
        learned: list[bool] = []
        for _, trained in pieces:
            part = next(parts)
            ids += part
            learned += [trained] * len(part)
        yield ids, learned


def tokenize_batch(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    """Each text's tokens. Without offsets, which nobody asks for here: half the time."""
    if tokenizer.is_fast:
        found = tokenizer.backend_tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [one.ids for one in found]
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return ids


def add_example(encoded: EncodedData, ids: list[int], learned: list[bool], max_length: int) -> None:
    """Count one record and keep what fits, if any of its answer is left."""
    encoded.longest = max(encoded.longest, len(ids))
    if len(ids) > max_length:
        encoded.truncated += 1
        ids, learned = ids[:max_length], learned[:max_length]
    # The first token has nothing before it to be predicted from.
    marks = np.array(learned, dtype=bool)
    marks[:1] = False
    if not marks.any():
        encoded.masked += 1
        return
    encoded.examples.append(Example(np.array(ids, dtype=np.int32), marks))
    encoded.tokens += len(ids)
    encoded.loss_tokens += int(marks.sum())


def check_truncation(encoded: EncodedData, name: str, settings: Settings, max_length: int) -> None:
    """Raise when too many records were cut or left without an answer."""
    hurt = max(encoded.truncated, encoded.masked)
    if not encoded.examples or hurt > settings.max_truncated_share * encoded.records:
        raise TrainerError(
            f"{encoded.truncated} of {encoded.records} records of {name} are longer than"
            f" {max_length} tokens and were cut, {encoded.masked} lost their whole answer; allowed"
            f" is a share of {settings.max_truncated_share:g} (local.max_truncated_share).",
            fix=f"raise local.max_length (the longest record has {encoded.longest} tokens), shorten"
            " the records, or raise local.max_truncated_share.",
        )


def pack_documents(file: DataFile, loaded: LoadedModel, length: int) -> EncodedData:
    """Raw text as sequences of exactly `length` tokens (the last one shorter), every token learned.

    Documents follow each other with an end token between them; none is cut away.
    """
    end = loaded.tokenizer.eos_token_id
    encoded = EncodedData([], file.records)
    rest = np.empty(0, dtype=np.int32)
    documents = ([(record["input"], True)] for record in read_records(file.path))
    for ids, _ in tokenize_segments(documents, loaded.tokenizer):
        encoded.longest = max(encoded.longest, len(ids) + 1)
        rest = np.concatenate([rest, np.array([*ids, end], dtype=np.int32)])
        while len(rest) >= length:
            add_packed_sequence(encoded, rest[:length])
            rest = rest[length:]
    if len(rest) > 1:
        add_packed_sequence(encoded, rest)
    return encoded


def add_packed_sequence(encoded: EncodedData, ids: np.ndarray) -> None:
    """Keep one packed sequence: every token but the first is predicted."""
    marks = np.ones(len(ids), dtype=bool)
    marks[0] = False
    encoded.examples.append(Example(ids.copy(), marks))
    encoded.tokens += len(ids)
    encoded.loss_tokens += len(ids) - 1


def steps_per_epoch(count: int, batch_size: int) -> int:
    """Optimizer steps in one pass over `count` sequences; the last batch may be smaller."""
    return -(-count // batch_size)


def epoch_batches(count: int, batch_size: int, seed: int, epoch: int) -> list[list[int]]:
    """The epoch's batches, each a list of example numbers."""
    order = np.random.default_rng([seed, epoch]).permutation(count).tolist()
    return [order[at : at + batch_size] for at in range(0, count, batch_size)]


@dataclass(frozen=True)
class MicroBatchLimit:
    """How much goes through the model at once: so many sequences, so many tokens."""

    sequences: int
    tokens: int

    def halved(self) -> MicroBatchLimit | None:
        """Half of it, or None when it is down to one sequence at a time."""
        if self.sequences <= 1:
            return None
        return MicroBatchLimit(self.sequences // 2, max(1, self.tokens // 2))


def count_padded_tokens(examples: Sequence[Example]) -> int:
    """How many tokens go through the model when all are padded to the longest."""
    return len(examples) * max(len(e.ids) for e in examples)


def split_into_micro_batches(
    examples: Sequence[Example],
    limit: MicroBatchLimit,
    count_tokens: Callable[[Sequence[Example]], int] = count_padded_tokens,
) -> Iterator[list[Example]]:
    """One batch in parts that fit `limit`, of like length, longest first: least padding.

    The loss of a batch is a sum over its learned tokens, so how it is cut does not change it.
    """
    part: list[Example] = []
    for example in sorted(examples, key=lambda e: len(e.ids), reverse=True):
        if part and (len(part) >= limit.sequences or count_tokens([*part, example]) > limit.tokens):
            yield part
            part = []
        part.append(example)
    if part:
        yield part


def collate(examples: Sequence[Example], pad: int, device: torch.device) -> dict[str, torch.Tensor]:
    """input_ids, attention_mask and labels of shape [sequences, longest], padded on the right.

    `kept` [positions] are the columns from which a row learns its next token.
    """
    longest = max(len(e.ids) for e in examples)
    ids = np.full((len(examples), longest), pad, dtype=np.int64)
    mask = np.zeros((len(examples), longest), dtype=np.int64)
    labels = np.full((len(examples), longest), IGNORE_INDEX, dtype=np.int64)
    for row, example in enumerate(examples):
        size = len(example.ids)
        ids[row, :size] = example.ids
        mask[row, :size] = 1
        labels[row, :size][example.loss_mask] = example.ids[example.loss_mask]
    kept = np.flatnonzero((labels[:, 1:] != IGNORE_INDEX).any(axis=0))
    batch = {"input_ids": ids, "attention_mask": mask, "labels": labels, "kept": kept}
    return {name: torch.from_numpy(array).to(device) for name, array in batch.items()}
