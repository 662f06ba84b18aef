"""What a step waits for: its computation is queued on a GPU, and one number is read at the end.

The steps run on tensors without content (device meta), where every read of a value and every copy
to and from the host passes the dispatcher. A CUDA device waits at the same places.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from local_backend.data.batches import MicroBatchLimit, collate
from local_backend.data.examples import Example
from local_backend.distributed.process_group import ProcessGroup
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings
from local_backend.training.loss import make_loss
from local_backend.training.memory_estimate import build_weightless_model
from local_backend.training.objectives import make_objective
from local_backend.training.train_loop import compute_mean_loss, step_optimizer

DEVICE = torch.device("meta")
LENGTHS = {"short": (9, 20, 31, 50), "shared and long": (40, 60, 500, 500)}


class Waits(TorchDispatchMode):
    """Records what makes the host wait for the device; a value that is read is 1."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs, name = kwargs or {}, func.overloadpacket.__name__
        tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        on_device = any(tensor.device == DEVICE for tensor in tensors)
        if name in ("_local_scalar_dense", "is_nonzero", "equal", "nonzero") and on_device:
            self.seen.append(name)
            return 1.0
        result = func(*args, **kwargs)
        devices = {
            t.device for t in (*tensors, *tree_leaves(result)) if isinstance(t, torch.Tensor)
        }
        if name in ("_to_copy", "copy_") and len(devices) > 1:
            is_queued = kwargs.get("non_blocking") or any(arg is True for arg in args[2:])
            if not is_queued:
                self.seen.append(f"{name} of {tuple(tensors[-1].shape)}")
        return result


@dataclasses.dataclass
class Run:
    """The parts of a TrainingRun that a step reads."""

    loaded: Any
    loss: Any
    objective: Any
    optimizer: Any
    process_group: ProcessGroup = dataclasses.field(default_factory=ProcessGroup)
    device: torch.device = DEVICE
    micro_batch_limit: MicroBatchLimit = dataclasses.field(
        default_factory=lambda: MicroBatchLimit(2, 10_000)
    )


@pytest.fixture
def build_run(tmp_path: Path, tiny_model: Path) -> Callable[[str], Any]:
    def build(method: str) -> Any:
        from transformers import AutoConfig

        data = {"train": tiny.pairs(4)}
        job = JobDir(tiny.write_job_dir(tmp_path / "job", tiny_model, data, method=method))
        settings = read_settings(job)
        config = AutoConfig.from_pretrained(tiny_model)
        loaded = build_weightless_model(config, settings, torch.bfloat16, DEVICE)
        weights = [weight for weight in loaded.model.parameters() if weight.requires_grad]
        # Not fused as on CUDA, which has no kernel here; its counters are on the CPU.
        optimizer = torch.optim.AdamW(weights, lr=1e-3, foreach=True)
        objective = make_objective(settings)
        loss = make_loss(loaded, objective, True, torch.bfloat16, DEVICE)
        return Run(loaded, loss, objective, optimizer)

    return build


def examples(lengths: Sequence[int]) -> list[Example]:
    return [
        Example(np.arange(n, dtype=np.int32) % tiny.CONTEXT, np.arange(n) > n // 2) for n in lengths
    ]


@pytest.mark.parametrize("method", ["full", "lora"])
@pytest.mark.parametrize("lengths", sorted(LENGTHS))
def test_a_step_reads_one_value_and_queues_every_copy(
    build_run: Callable[[str], Any], method: str, lengths: str
) -> None:
    run = build_run(method)
    with Waits() as waits:
        compute_mean_loss(run, examples(LENGTHS[lengths]), backward=True)
        step_optimizer(run)
    assert waits.seen == ["_local_scalar_dense"]


def test_rows_of_the_padded_path_are_copied_without_a_wait() -> None:
    with Waits() as waits:
        batch = collate(examples((5, 9)), 0, DEVICE)
    assert waits.seen == [] and batch["input_ids"].device == DEVICE


def test_waits_are_seen() -> None:
    """The counter itself: a copy that is not queued, a comparison, a read value."""
    with Waits() as waits:
        on_device = torch.zeros(3).to(DEVICE)
        on_device.copy_(torch.ones(3))
        bool(on_device.sum() > 0)
    assert waits.seen == ["_to_copy of (3,)", "copy_ of (3,)", "_local_scalar_dense"]
