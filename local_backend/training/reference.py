"""Log-probabilities under the model that training starts from, computed once and kept.

They are kept in the job's folder under the digest of everything that they follow from: the tokens
(so the data, the template and the tokenizer), the weights, and how they were computed. A run that
continues reads them, and so does another job beside it with the same pairs and the same model.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from local_backend.atomic_folders import atomic_folder
from local_backend.data.batches import MicroBatchLimit, split_into_micro_batches
from local_backend.data.examples import (
    EncodedData,
    Example,
    ExampleSequence,
    example_lengths,
    longest_first,
)
from local_backend.device import is_out_of_memory
from local_backend.distributed.dtensor import local_tensor
from local_backend.job_dir import REFERENCE, JobDir
from local_backend.models.load_model import eval_mode
from local_backend.models.token_losses import TokenLosses
from local_backend.progress import ProgressReporter
from local_backend.training.loss import LossFunction

VERSION = b"1"
VALUES, DIGEST = "values.safetensors", "sha256"


@dataclass(frozen=True)
class ReferenceModel:
    """The model as it was loaded, before its first step, with what computing takes."""

    model: torch.nn.Module
    loss: LossFunction
    dtype: torch.dtype
    limit: MicroBatchLimit
    reporter: ProgressReporter


def attach_reference(
    parts: Iterable[EncodedData], reference: ReferenceModel, job_dir: JobDir
) -> None:
    """Give each example of the data its sequences' log-probabilities, read or computed.

    All ranks must call it at the same time, before any weight is trained or restored.
    """
    weights = hash_weights(reference.model)
    for data in parts:
        key = reference_key(data.examples, reference, weights)
        data.examples = _with_reference(data.examples, reference, job_dir, key)


class ReferencedExamples(ExampleSequence):
    """Examples with the log-probabilities of their sequences, `values` [sequences]."""

    def __init__(self, examples: Sequence[Example], values: np.ndarray) -> None:
        self._examples, self._values = examples, values
        self._ends = np.cumsum([e.row_count for e in examples])

    def __len__(self) -> int:
        return len(self._examples)

    @property
    def lengths(self) -> np.ndarray:
        """Return the number of tokens of each example, [examples]."""
        return example_lengths(self._examples)

    def read(self, at: int) -> Example:
        """Return the example at `at` with the values of its sequences."""
        example, end = self._examples[at], self._ends[at]
        values = self._values[end - example.row_count : end]
        return replace(example, reference=tuple(values.tolist()))


def _with_reference(
    examples: Sequence[Example], reference: ReferenceModel, job_dir: JobDir, key: str
) -> Sequence[Example]:
    group, rows = reference.reporter.process_group, sum(e.row_count for e in examples)
    kept = read_reference(job_dir, key, rows)
    if group.any_rank(kept is None):
        reference.reporter.log(f"computing the reference log-probabilities of {rows} sequences")
        values = compute_reference(examples, reference)
        if group.is_rank_zero:
            write_reference(job_dir.path / REFERENCE / key, values)
    else:
        assert kept is not None
        values = kept
        folder = job_dir.path / REFERENCE / key
        if group.is_rank_zero and not folder.exists():  # the job beside it may be removed
            write_reference(folder, values)
        reference.reporter.log(f"the reference log-probabilities of {rows} sequences are kept")
    return ReferencedExamples(examples, values)


def reference_key(examples: Sequence[Example], reference: ReferenceModel, weights: str) -> str:
    """Return the SHA-256 in hex of what the values follow from."""
    digest = hashlib.sha256(VERSION)
    digest.update(f"{weights} {reference.loss.name} {reference.dtype}".encode())
    for example in examples:
        digest.update(repr((len(example.ids), example.row_lengths)).encode())
        digest.update(np.ascontiguousarray(example.ids).tobytes())
        digest.update(np.packbits(example.loss_mask).tobytes())
    return digest.hexdigest()


def hash_weights(model: torch.nn.Module) -> str:
    """Return the SHA-256 in hex of a model's weights, of a sharded one those of this rank.

    A new adapter is left out, whatever its rank: with B = 0 it changes nothing.
    """
    weights = {name: local_tensor(w.detach()) for name, w in model.named_parameters()}
    if not any(weight.any() for name, weight in weights.items() if "lora_B" in name):
        weights = {name: weight for name, weight in weights.items() if "lora_" not in name}
    digest = hashlib.sha256()
    for name, weight in weights.items():
        digest.update(name.encode())
        digest.update(weight.contiguous().flatten().view(torch.uint8).cpu().numpy().data)
    return digest.hexdigest()


def compute_reference(examples: Sequence[Example], reference: ReferenceModel) -> np.ndarray:
    """Return the log-probability of each sequence's loss tokens, [sequences], without dropout."""
    limit: MicroBatchLimit | None = reference.limit
    while limit is not None:
        try:
            return _compute(examples, replace(reference, limit=limit))
        except (RuntimeError, MemoryError) as error:
            smaller = limit.halved()
            if smaller is None or not is_out_of_memory(error):
                raise
            limit = smaller
    raise AssertionError("the loop returns or raises")


def _compute(examples: Sequence[Example], reference: ReferenceModel) -> np.ndarray:
    group, loss = reference.reporter.process_group, reference.loss
    counts = np.array([e.row_count for e in examples], dtype=np.int64)
    starts = np.cumsum(counts) - counts
    # The parts hold the examples in this order, so the rows of the first `done` ones are known.
    order, done = longest_first(examples), 0
    parts = split_into_micro_batches(examples, reference.limit, loss.count_tokens)
    values = np.zeros(int(counts.sum()), dtype=np.float32)
    with eval_mode(reference.model, sharded=group.is_sharded):
        while shares := list(itertools.islice(parts, group.world_size)):
            if group.world_size == 1:
                reference.reporter.raise_if_stopped()
            ends = done + np.cumsum([len(share) for share in shares])
            done = int(ends[-1])
            is_left_over = group.rank >= len(shares)
            # The ranks of a sharded model call it equally often: one without a part repeats one.
            if is_left_over and not group.is_sharded:
                continue
            rank = min(group.rank, len(shares) - 1)
            sums = loss.reduce(shares[rank], sum_rows).float().cpu().numpy()
            if not is_left_over:
                own = order[ends[rank] - len(shares[rank]) : ends[rank]]
                rows = [np.arange(starts[at], starts[at] + counts[at]) for at in own]
                values[np.concatenate(rows)] = -sums
    if group.world_size == 1:
        return values
    return np.array(group.all_reduce_sum(*values.tolist()), dtype=np.float32)


def sum_rows(losses: TokenLosses) -> torch.Tensor:
    """Return each sequence's summed loss, [sequences], in the order of `flatten_rows`."""
    return torch.stack([row.sum() for row in losses.by_row()])


def read_reference(job_dir: JobDir, key: str, rows: int) -> np.ndarray | None:
    """Return the kept values, this job's or those of a job beside it; None if there are none.

    A file that anything has changed counts as none.
    """
    beside = sorted(job_dir.path.parent.glob(f"*/{REFERENCE}/{key}/{VALUES}"))
    for path in (job_dir.path / REFERENCE / key / VALUES, *beside):
        with contextlib.suppress(OSError, ValueError, KeyError, RuntimeError, SafetensorError):
            values = load_file(path)["values"].numpy()
            written = (path.parent / DIGEST).read_text(encoding="ascii")
            if values.shape == (rows,) and written == _digest(values):
                return values
    return None


def write_reference(folder: Path, values: np.ndarray) -> None:
    """Keep the values, with their digest beside them."""
    with atomic_folder(folder, replace=True) as temporary:
        save_file({"values": torch.from_numpy(values)}, temporary / VALUES)
        (temporary / DIGEST).write_text(_digest(values), encoding="ascii")


def _digest(values: np.ndarray) -> str:
    return hashlib.sha256(values.tobytes()).hexdigest()
