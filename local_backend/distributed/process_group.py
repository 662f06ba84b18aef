"""Data-parallel training: several processes on one job, each with its share of every batch.

Each process has the whole model, and gradients are summed over the processes before each step (as
in PyTorch's DistributedDataParallel), so all of them take the same step. Or the model is sharded
over them (fsdp.py). Only rank 0 writes. The processes find each other by torchrun's variables
(RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR), or on one machine by a file in the job's folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist

from local_backend.data.examples import Example
from local_backend.errors import TrainerError
from local_backend.job_dir import MEETING, JobDir

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
"""How long one process waits for the others: one may be writing, or converting a model."""


@dataclass(frozen=True)
class ProcessGroup:
    """A process among those of its job. With a single process, every method is a no-op."""

    rank: int = 0
    world_size: int = 1
    is_sharded: bool = False
    """True if each rank holds a part of the model. Then all ranks must call the model together."""

    @property
    def is_rank_zero(self) -> bool:
        """Return True for the one process that writes."""
        return self.rank == 0

    @property
    def joins_weight_gather(self) -> bool:
        """Return True if this rank is needed to gather weights: all if sharded, else rank 0."""
        return self.is_rank_zero or self.is_sharded

    @property
    def loss_scale(self) -> int:
        """Return the factor for losses: FSDP averages gradients, and training needs the sum."""
        return self.world_size if self.is_sharded else 1

    def split_batch(self, examples: Sequence[Example]) -> list[list[Example]]:
        """Return each rank's share of a batch; all shares have similar lengths."""
        if self.world_size == 1:
            return [list(examples)]
        # Dealt out like cards, longest first, so that no rank waits long for another.
        ordered = sorted(examples, key=lambda e: len(e.ids), reverse=True)
        return [ordered[rank :: self.world_size] for rank in range(self.world_size)]

    def all_reduce_grads(self, weights: Iterable[torch.nn.Parameter]) -> None:
        """Replace each weight's gradient with its sum over the ranks. FSDP has already done it."""
        if self.world_size == 1 or self.is_sharded:
            return
        grads = []
        for weight in weights:
            if weight.grad is None:  # this rank had no share of a short batch
                weight.grad = torch.zeros_like(weight)
            grads.append(weight.grad)
        # One collective for all gradients: an adapter has hundreds of small ones, and each
        # collective costs a round trip.
        flat = torch.cat([grad.flatten() for grad in grads])
        with raise_on_lost_peer():
            dist.all_reduce(flat)
        for grad, part in zip(grads, torch.split(flat, [g.numel() for g in grads]), strict=True):
            grad.copy_(part.view_as(grad))

    def all_reduce_sum(self, *values: float) -> list[float]:
        """Return each value's sum over the ranks."""
        if self.world_size == 1:
            return list(values)
        device = "cuda" if dist.get_backend() == "nccl" else "cpu"  # NCCL has no CPU tensors
        sums = torch.tensor(values, dtype=torch.float64, device=device)
        with raise_on_lost_peer():
            dist.all_reduce(sums)
        reduced: list[float] = sums.tolist()  # at once: each read of its own waits for the GPU
        return reduced

    def any_rank(self, flag: bool) -> bool:
        """Return True on every rank if `flag` is True on any."""
        return self.all_reduce_sum(float(flag))[0] > 0

    def all_ranks_agree(self, value: float) -> bool:
        """Return True on every rank if all have the same value."""
        # A sum that equals world_size times one's own value does so on every rank only if all
        # values are equal; any_rank makes the ranks agree on the answer as well.
        return not self.any_rank(self.all_reduce_sum(value)[0] != self.world_size * value)

    def broadcast_flag(self, flag: bool) -> bool:
        """Return rank 0's flag if the model is sharded, else this rank's own."""
        return self.any_rank(flag and self.is_rank_zero) if self.is_sharded else flag

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1:
            dist.destroy_process_group()


@contextmanager
def raise_on_lost_peer() -> Iterator[None]:
    """Turn the error of a collective into a TrainerError about the lost process."""
    try:
        yield
    except RuntimeError as error:
        raise lost_peer_error(error) from error


def lost_peer_error(error: Exception) -> TrainerError:
    """Return the error for a lost process."""
    return TrainerError(
        f"Another process of this job is gone ({str(error).splitlines()[0][:200]}).",
        fix="look for its own error in the log; `cloudft resume` continues from the last"
        " checkpoint.",
    )


def is_lost_peer(error: Exception) -> bool:
    """Return True for an error that a collective of Gloo or NCCL raises when a process is lost.

    Gloo's is a plain RuntimeError that names its source file.
    """
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def init_process_group(job_dir: JobDir) -> ProcessGroup:
    """Join the other processes of the job, if there are any."""
    world_size = int(os.environ.get("WORLD_SIZE", "1"))
    if world_size == 1:
        return ProcessGroup()
    rank, local_rank = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    if torch.cuda.is_available():
        torch.cuda.set_device(local_rank)
    # A file works on one machine without choosing a port, which another job could take meanwhile.
    # torchrun and several machines have their own address in MASTER_ADDR.
    has_address = (
        int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1 or "TORCHELASTIC_RUN_ID" in os.environ
    )
    init_method = "env://" if has_address else f"file://{job_dir / MEETING}"
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    with raise_on_lost_peer():
        dist.init_process_group(
            backend,
            init_method=init_method,
            rank=rank,
            world_size=world_size,
            timeout=COLLECTIVE_TIMEOUT,
        )
    return ProcessGroup(rank, world_size)
