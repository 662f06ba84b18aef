"""Where a run goes on after a stop or a crash.

    checkpoints/step-00000012/   trained.safetensors, optimizer.pt, position.json (written last)
    checkpoints/best/            trained.safetensors of the lowest validation loss, best.json

A checkpoint folder appears whole or not at all; the two newest are kept, so that a damaged one has
a neighbour to fall back on.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from local_backend.folders import new_folder
from local_backend.model import trainable
from local_backend.shards import part_like, whole

TRAINED = "trained.safetensors"
OPTIMIZER = "optimizer.pt"
POSITION = "position.json"
BEST = "best"
KEPT = 2
PEFTS_OWN = re.compile(r"base_model\.model\.(.+\.lora_[AB])\.default\.weight")
"""How PEFT names an adapter's weights: so they stand in checkpoints of jobs that began with its
layers, in the same order.
"""


@dataclass
class Position:
    """Where the loop stands: all of it that is not weights.

    `step` optimizer steps are done; `metrics_bytes` is the length of metrics.jsonl up to them.
    """

    step: int = 0
    metrics_bytes: int = 0
    base_loss: float | None = None
    best_loss: float | None = None
    best_step: int | None = None
    bad_validations: int = 0
    validated_step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    micro: list[int] = field(default_factory=list)


def trained_weights(model: Any, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """The trained weights, whole, on the CPU, ready for a file. Nothing without `keep`.

    Of a sharded model every process must ask at once, one of them to keep what comes.
    """
    found = {}
    for name, weight in trainable(model).items():
        value = whole(weight.detach())
        if keep:
            found[name] = value.cpu().contiguous()
    return found


def optimizer_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """The optimizer's state as `trained_weights` are."""
    state = optimizer.state_dict()
    found: dict[int, dict[str, torch.Tensor]] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            complete = whole(value)
            if keep:
                sharded = complete is not value
                found.setdefault(number, {})[name] = complete.cpu() if sharded else value
    return {**state, "state": found}


def put_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Set the trained weights of `model`. A weight that is missing or left over is an error."""
    targets = trainable(model)
    if targets.keys() != weights.keys():
        weights = {PEFTS_OWN.sub(r"\1", name): w for name, w in weights.items()}
    if targets.keys() != weights.keys():
        raise ValueError("the checkpoint's weights are not this model's")
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(part_like(weights[name], target))


def put_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Set the optimizer to the state in `file`: each process to its part of it."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    sharded = any(isinstance(weight, DTensor) for weight in weights)
    state = torch.load(file, weights_only=True, mmap=sharded)  # mapped: read once by all
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if value.shape == weights[number].shape:
                entry[name] = part_like(value, weights[number])
    optimizer.load_state_dict(state)


def save(
    folder: Path,
    model: Any,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    writes: bool = True,
) -> None:
    """Write the checkpoint of `position` and let older ones go.

    Of a sharded model every process must call it, and one of them `writes`.
    """
    weights = trained_weights(model, keep=writes)
    state = optimizer_state(optimizer, keep=writes)
    if not writes:
        return
    final = folder / f"step-{position.step:08d}"
    with new_folder(final, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        torch.save(state, temporary / OPTIMIZER)
        digests = {name: digest(temporary / name) for name in (TRAINED, OPTIMIZER)}
        (temporary / POSITION).write_text(
            json.dumps({"position": asdict(position), "sha256": digests}), encoding="utf-8"
        )
    for old in sorted(folder.glob("step-*"))[:-KEPT]:
        shutil.rmtree(old)


def restore(folder: Path, model: Any, optimizer: torch.optim.Optimizer) -> Position | None:
    """Set model and optimizer to the newest checkpoint that is whole; None when there is none."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            record = json.loads((path / POSITION).read_text(encoding="utf-8"))
            if any(digest(path / name) != value for name, value in record["sha256"].items()):
                raise ValueError("a file does not have its digest")
            put_weights(model, load_file(path / TRAINED))
            put_optimizer(optimizer, path / OPTIMIZER)
            return Position(**record["position"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            print(f"checkpoint {path.name} is damaged ({error}); trying the one before", flush=True)
    return None


def save_best(folder: Path, model: Any, position: Position, *, writes: bool = True) -> None:
    """Keep the weights of the lowest validation loss so far; see `save`."""
    weights = trained_weights(model, keep=writes)
    if not writes:
        return
    with new_folder(folder / BEST, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        (temporary / "best.json").write_text(json.dumps(asdict(position)), encoding="utf-8")


def best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the lowest validation loss."""
    return load_file(folder / BEST / TRAINED)


def put_best(folder: Path, model: Any) -> None:
    """Set the model to the weights of the lowest validation loss."""
    put_weights(model, best_weights(folder))


def remove_all(folder: Path) -> None:
    """Drop the checkpoints of a run that is complete."""
    shutil.rmtree(folder, ignore_errors=True)


def digest(path: Path) -> str:
    """sha256 of a file, in hex."""
    sha = hashlib.sha256()
    for block in blocks(path):
        sha.update(block)
    return sha.hexdigest()


def blocks(path: Path) -> Iterator[bytes]:
    """A file in parts."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block
