"""Several processes on one job: each takes its share of every batch.

Each has the whole model, and gradients are added up over the processes before each step (data
parallel training, as PyTorch's DistributedDataParallel does), so all of them take the same step; or
the model is sharded over them (sharding.py). Only the first one writes. The processes find each
other by torchrun's variables (RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR), or on one machine by a
file in the job's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from local_backend.data.batches import Example
from local_backend.errors import TrainerError
from local_backend.job_dir import MEETING, JobDir

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long one process waits for the others: one may be writing, or converting a model."""


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those of its job. Of a job with one process nothing here does anything."""

    rank: int = 0
    world_size: int = 1
    is_sharded: bool = False
    """True when each holds a part of the model: then all must do everything at once."""

    @property
    def is_rank_zero(self) -> bool:
        """True of the one process that writes."""
        return self.rank == 0

    @property
    def joins_weight_gather(self) -> bool:
        """True of a process that is needed to gather weights: of a whole model, the first alone."""
        return self.is_rank_zero or self.is_sharded

    @property
    def loss_scale(self) -> int:
        """What losses are multiplied by: FSDP takes the mean of gradients; we want their sum."""
        return self.world_size if self.is_sharded else 1

    def split_batch(self, examples: Sequence[Example]) -> list[list[Example]]:
        """What each process does of a batch; all shares are of like length."""
        if self.world_size == 1:
            return [list(examples)]
        ordered = sorted(examples, key=lambda e: len(e.ids), reverse=True)
        return [ordered[rank :: self.world_size] for rank in range(self.world_size)]

    def all_reduce_grads(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace each weight's gradient by its sum over the processes. FSDP has done it."""
        if self.world_size == 1 or self.is_sharded:
            return
        weights = list(weights)
        for weight in weights:
            if weight.grad is None:  # of a process that had no share of a short batch
                weight.grad = torch.zeros_like(weight)
        flat = torch.cat([weight.grad.flatten() for weight in weights])
        with raise_on_lost_peer():
            dist.all_reduce(flat)
        for weight, part in zip(weights, flat.split([w.numel() for w in weights]), strict=True):
            weight.grad.copy_(part.view_as(weight))

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Each value's sum over the processes."""
        if self.world_size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        with raise_on_lost_peer():
            dist.all_reduce(sums)
        return [float(value) for value in sums]

    def any_rank(self, flag: bool) -> bool:
        """True everywhere when it is True anywhere."""
        return self.all_reduce_sum(float(flag))[0] > 0

    def all_ranks_agree(self, value: float) -> bool:
        """True everywhere when all have the same value."""
        return not self.any_rank(self.all_reduce_sum(value)[0] != self.world_size * value)

    def broadcast_flag(self, flag: bool) -> bool:
        """The first process's flag, where the model is sharded; else each its own."""
        return self.any_rank(flag and self.is_rank_zero) if self.is_sharded else flag

    def close(self) -> None:
        """The others are not needed any more."""
        if self.world_size > 1:
            dist.destroy_process_group()


@contextmanager
def raise_on_lost_peer() -> Iterator[None]:
    """A lost process, in words."""
    try:
        yield
    except RuntimeError as error:
        raise lost_peer_error(error) from error


def lost_peer_error(error: Exception) -> TrainerError:
    """A lost process, in words."""
    return TrainerError(
        f"Another of this job's processes is gone ({str(error).splitlines()[0][:200]}).",
        fix="look for its own words in the log; `cloudft resume` goes on from the last checkpoint.",
    )


def is_lost_peer(error: Exception) -> bool:
    """True of what a collective of Gloo or NCCL raises, wherever it does, when a process is lost.

    Gloo's is a plain RuntimeError that names its source file.
    """
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def init_process_group(job_dir: JobDir) -> ProcessGroup:
    """Meet the other processes of the job, if there are any."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        return ProcessGroup()
    rank, place = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(place)
    several = (
        int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1 or "TORCHELASTIC_RUN_ID" in os.environ
    )
    meeting = "env://" if several else f"file://{job_dir / MEETING}"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with raise_on_lost_peer():
        dist.init_process_group(
            backend, init_method=meeting, rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT
        )
    return ProcessGroup(rank, size)
