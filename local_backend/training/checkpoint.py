"""Where a run goes on after a stop or a crash.

    checkpoints/step-00000012/   trained.safetensors, optimizer.pt, position.json (written last)
    checkpoints/best/            trained.safetensors of the lowest validation loss, best.json

A checkpoint folder appears whole or not at all; the two newest are kept, so that a damaged one has
a neighbor to fall back on. One is taken only when all that it needs (position, weights, optimizer,
best weights, the curve up to it) was found whole, before any weight of the model is changed: so a
run goes on exactly, or begins anew with the model as it was loaded.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import Iterator, KeysView, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from local_backend.atomic_folders import atomic_folder, remove_path
from local_backend.device import is_out_of_memory
from local_backend.distributed.dtensor import full_tensor, shard_like
from local_backend.models.load_model import trainable_parameters
from local_backend.training.loss_curve import validate_curve

TRAINED = "trained.safetensors"
OPTIMIZER = "optimizer.pt"
POSITION = "position.json"
BEST, BEST_RECORD = "best", "best.json"
CHECKPOINTS_KEPT = 2
PEFT_WEIGHT_NAME = re.compile(r"base_model\.model\.(.+\.lora_[AB])\.default\.weight")
"""How PEFT names an adapter's weights: so they stand in checkpoints of jobs that began with its
layers, in the same order.
"""
DAMAGE_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(SafetensorError, pickle.UnpicklingError),
)
"""What files that were changed by anything may raise when they are read."""
Value = TypeVar("Value")


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

    @classmethod
    def from_json(cls, value: Any) -> Position:
        """A position as JSON has it. Keys that are not ours are left out: a newer trainer's.

        Raises KeyError, TypeError, ValueError.
        """
        read = {f.name: value[f.name] for f in fields(cls)}
        for name in ("step", "metrics_bytes", "bad_validations", "validated_step", "tokens"):
            _require_number(name, read[name], int)
        for name in ("base_loss", "best_loss", "best_step"):
            if read[name] is not None:
                _require_number(name, read[name], int if name == "best_step" else (int, float))
        _require_number("seconds", read["seconds"], (int, float))
        if read["best_step"] is not None and read["best_loss"] is None:
            raise ValueError("best_step is there and best_loss is not")
        if not isinstance(read["micro"], list) or len(read["micro"]) not in (0, 2):
            raise TypeError("micro is no pair")
        for number in read["micro"]:
            _require_number("micro", number, int, least=1)
        return cls(**read)

    def digest(self) -> str:
        """sha256 of the position, in hex."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()


def _require_number(name: str, value: Any, kind: Any, least: int = 0) -> None:
    """Raise TypeError unless `value` is a number of that kind, not below `least` where an int."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}")
    if kind is int and value < least:
        raise ValueError(f"{name} is {value}")


def gather_trained_weights(model: Any, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """The trained weights, whole, on the CPU, ready for a file. Nothing without `keep`.

    Of a sharded model every process must ask at once, one of them to keep what comes.
    """
    found = {}
    for name, weight in trainable_parameters(model).items():
        value = full_tensor(weight.detach())
        if keep:
            found[name] = value.cpu().contiguous()
    return found


def gather_optimizer_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """The optimizer's state as `trained_weights` are."""
    state = optimizer.state_dict()
    found: dict[int, dict[str, torch.Tensor]] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            complete = full_tensor(value)
            if keep:
                sharded = complete is not value
                found.setdefault(number, {})[name] = complete.cpu() if sharded else value
    return {**state, "state": found}


def set_trained_weights(model: Any, weights: dict[str, torch.Tensor]) -> None:
    """Set the trained weights of `model`. A weight that is missing or left over is an error."""
    targets = trainable_parameters(model)
    weights = _with_model_names(weights, targets.keys())
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(shard_like(weights[name], target))


def _with_model_names(found: Mapping[str, Value], targets: KeysView[str]) -> dict[str, Value]:
    """Return what is known of each weight by its name in the model. Raises ValueError."""
    if targets != found.keys():
        found = {PEFT_WEIGHT_NAME.sub(r"\1", name): value for name, value in found.items()}
    if targets != found.keys():
        raise ValueError("the checkpoint's weights are not this model's")
    return dict(found)


def _check_weights(model: Any, file: Path) -> None:
    """Raise ValueError unless `file` has every trained weight in its shape. Reads its header."""
    targets = trainable_parameters(model)
    with safe_open(file, "pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    for name, shape in _with_model_names(shapes, targets.keys()).items():
        if list(targets[name].shape) != list(shape):
            raise ValueError(f"{name} has the shape {list(shape)}")


def _check_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Raise ValueError, TypeError or KeyError unless `file` has this optimizer's state."""
    state = torch.load(file, weights_only=True, mmap=True, map_location="cpu")  # only mapped
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    saved = [number for group in state["param_groups"] for number in group["params"]]
    if len(saved) != len(weights) or not {*state["state"]} <= {*saved}:
        raise ValueError("the optimizer's state is of other weights")
    for weight, number in zip(weights, saved, strict=True):
        for value in state["state"].get(number, {}).values():
            if value.dim() and value.shape != weight.shape:
                raise ValueError(f"the optimizer's state {number} has the shape {value.shape}")


def load_optimizer_state(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Set the optimizer to the state in `file`: each process to its part of it."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    sharded = any(isinstance(weight, DTensor) for weight in weights)
    state = torch.load(file, weights_only=True, mmap=sharded)  # mapped: read once by all
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if value.shape == weights[number].shape:
                entry[name] = shard_like(value, weights[number])
    optimizer.load_state_dict(state)


def write_checkpoint(
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
    weights = gather_trained_weights(model, keep=writes)
    state = gather_optimizer_state(optimizer, keep=writes)
    if not writes:
        return
    final = folder / f"step-{position.step:08d}"
    with atomic_folder(final, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        # Through an open file: else torch does not say that the disk is full.
        with (temporary / OPTIMIZER).open("wb") as file:
            torch.save(state, file)
        digests = {name: sha256_file(temporary / name) for name in (TRAINED, OPTIMIZER)}
        record = {"position": asdict(position), "sha256": digests, "digest": position.digest()}
        (temporary / POSITION).write_text(json.dumps(record), encoding="utf-8")
    # Later ones are damaged: the run went on from before them, and will come to them again.
    there = sorted(folder.glob("step-*"))
    kept = [path for path in there if path.name <= final.name][-CHECKPOINTS_KEPT:]
    for path in there:
        if path not in kept:
            remove_path(path)


def restore_newest(
    folder: Path, model: Any, optimizer: torch.optim.Optimizer, curve: Path | None = None
) -> Position | None:
    """Set model and optimizer to the newest checkpoint that is whole; None when there is none.

    `curve` is the file that must hold every step up to it. Nothing is changed before the whole
    checkpoint was checked.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            position = read_position(path)
            _check_weights(model, path / TRAINED)
            _check_optimizer(optimizer, path / OPTIMIZER)
            if position.best_step is not None:
                _check_best(folder / BEST, model)
            if curve is not None:
                validate_curve(curve, position.metrics_bytes, position.step)
        except DAMAGE_ERRORS as error:
            if is_out_of_memory(error):
                raise
            print(f"checkpoint {path.name} is damaged ({error}); trying the one before", flush=True)
            continue
        set_trained_weights(model, load_file(path / TRAINED))
        load_optimizer_state(optimizer, path / OPTIMIZER)
        return position
    return None


def read_position(checkpoint: Path) -> Position:
    """The position of a checkpoint whose files are all there and as they were written.

    Raises OSError, ValueError, KeyError, TypeError.
    """
    for name in (POSITION, TRAINED, OPTIMIZER):
        if not (checkpoint / name).is_file():  # reading a pipe or a device may never end
            raise ValueError(f"{name} is no file")
    record = json.loads((checkpoint / POSITION).read_text(encoding="utf-8"))
    position = Position.from_json(record["position"])
    if checkpoint.name != f"step-{position.step:08d}":
        raise ValueError(f"{POSITION} is of step {position.step}")
    # Checkpoints that were written before it was kept have no digest of the position.
    if record.get("digest", position.digest()) != position.digest():
        raise ValueError(f"{POSITION} does not have its digest")
    for name in (TRAINED, OPTIMIZER):
        if sha256_file(checkpoint / name) != record["sha256"][name]:
            raise ValueError(f"{name} does not have its digest")
    return position


def write_best_weights(
    folder: Path, model: Any, position: Position, *, writes: bool = True
) -> None:
    """Keep the weights of the lowest validation loss so far; see `save`."""
    weights = gather_trained_weights(model, keep=writes)
    if not writes:
        return
    with atomic_folder(folder / BEST, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        record = {**asdict(position), "sha256": {TRAINED: sha256_file(temporary / TRAINED)}}
        (temporary / BEST_RECORD).write_text(json.dumps(record), encoding="utf-8")


def _check_best(best: Path, model: Any) -> None:
    """Raise OSError, ValueError, KeyError or TypeError unless the best weights are whole."""
    record = json.loads((best / BEST_RECORD).read_text(encoding="utf-8"))
    _check_weights(model, best / TRAINED)
    # Those that were written before it was kept have no digest.
    if "sha256" in record and sha256_file(best / TRAINED) != record["sha256"][TRAINED]:
        raise ValueError(f"{BEST}/{TRAINED} does not have its digest")


def read_best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """The weights of the lowest validation loss."""
    return load_file(folder / BEST / TRAINED)


def restore_best_weights(folder: Path, model: Any) -> None:
    """Set the model to the weights of the lowest validation loss."""
    set_trained_weights(model, read_best_weights(folder))


def remove_checkpoints(folder: Path) -> None:
    """Drop the checkpoints of a run that is complete."""
    shutil.rmtree(folder, ignore_errors=True)


def sha256_file(path: Path) -> str:
    """sha256 of a file, in hex."""
    sha = hashlib.sha256()
    for block in read_blocks(path):
        sha.update(block)
    return sha.hexdigest()


def read_blocks(path: Path) -> Iterator[bytes]:
    """A file in parts."""
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            yield block
