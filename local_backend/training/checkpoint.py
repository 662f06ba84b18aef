"""Write and restore checkpoints, so that a run continues after a stop or a crash.

    checkpoints/step-00000012/   trained.safetensors, optimizer.pt, position.json (written last)
    checkpoints/best/            trained.safetensors of the lowest validation loss, best.json

A checkpoint folder appears complete or not at all. The two newest are kept, so that a damaged one
has a predecessor to fall back on. A checkpoint is used only if everything that it needs (position,
weights, optimizer, best weights, the curve up to it) is whole, and this is checked before any
weight of the model is changed. So a run continues exactly, or starts over with the model as it was
loaded.
"""

from __future__ import annotations

import hashlib
import json
import pickle
import re
import shutil
from collections.abc import KeysView, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from local_backend.atomic_folders import atomic_folder, remove_path
from local_backend.device import is_out_of_memory
from local_backend.distributed.dtensor import full_tensor, is_dtensor, shard_like
from local_backend.file_digest import sha256_file
from local_backend.models.load_model import trainable_parameters
from local_backend.training.loss_curve import validate_curve

TRAINED = "trained.safetensors"
OPTIMIZER = "optimizer.pt"
POSITION = "position.json"
BEST, BEST_RECORD = "best", "best.json"
CHECKPOINTS_KEPT = 2
PEFT_WEIGHT_NAME = re.compile(r"base_model\.model\.(.+\.lora_[AB])\.default\.weight")
"""PEFT's name for an adapter's weight, as in checkpoints of jobs that began with PEFT's layers.

Their order is the same.
"""
DAMAGE_ERRORS = (
    *(OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, EOFError),
    *(SafetensorError, pickle.UnpicklingError),
)
"""What reading a file may raise if anything has changed it."""
Value = TypeVar("Value")


@dataclass
class Position:
    """The state of the training loop, apart from weights.

    `step` optimizer steps are done; `metrics_bytes` is the length of metrics.jsonl up to them.
    """

    step: int = 0
    metrics_bytes: int = 0
    base_loss: float | None = None
    base_measures: dict[str, float] = field(default_factory=dict)
    best_loss: float | None = None
    best_step: int | None = None
    bad_validations: int = 0
    validated_step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    micro: list[int] = field(default_factory=list)
    kernels: str = ""
    """Digest of the compiled kernels that the steps used; empty without."""

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Position:
        """Return a position from its JSON value. Ignore unknown keys, as of a newer trainer.

        Raise KeyError, TypeError or ValueError.
        """
        # Checked value by value: a position that is damaged, but still JSON, must not be resumed.
        # Jobs that were written before `base_measures` and `kernels` existed have none.
        value = {"base_measures": {}, "kernels": "", **value}
        read = {f.name: value[f.name] for f in fields(cls)}
        for name in ("step", "metrics_bytes", "bad_validations", "validated_step", "tokens"):
            _require_number(name, read[name], int)
        for name in ("base_loss", "best_loss", "best_step"):
            if read[name] is not None:
                _require_number(name, read[name], int if name == "best_step" else (int, float))
        _require_number("seconds", read["seconds"], (int, float))
        if read["best_step"] is not None and read["best_loss"] is None:
            raise ValueError("best_step is set and best_loss is not")
        for name, number in dict(read["base_measures"]).items():
            _require_number(name, number, (int, float))
        if not isinstance(read["micro"], list) or len(read["micro"]) not in (0, 2):
            raise TypeError("micro is not a pair")
        for number in read["micro"]:
            _require_number("micro", number, int, least=1)
        if not isinstance(read["kernels"], str):
            raise TypeError("kernels is not a string")
        return cls(**read)

    def digest(self) -> str:
        """Return the SHA-256 of the position in hex."""
        content = asdict(self)
        for name in ("base_measures", "kernels"):
            if not content[name]:  # as it was before that existed
                del content[name]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _require_number(
    name: str, value: object, kind: type | tuple[type, ...], least: int = 0
) -> None:
    """Raise TypeError unless `value` is a number of `kind`; ValueError for an int below `least`."""
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}")
    if kind is int and isinstance(value, int) and value < least:
        raise ValueError(f"{name} is {value}")


def gather_trained_weights(model: nn.Module, *, keep: bool = True) -> dict[str, torch.Tensor]:
    """Return the trained weights, whole, on the CPU; an empty dict without `keep`.

    All ranks of a sharded model must call this at the same time. One of them keeps the result.
    """
    weights = {}
    for name, weight in trainable_parameters(model).items():
        # One at a time, so that the whole model never exists on a device.
        value = full_tensor(weight.detach())
        if keep:
            weights[name] = value.cpu().contiguous()
    return weights


def gather_optimizer_state(optimizer: torch.optim.Optimizer, *, keep: bool) -> dict[str, Any]:
    """Return the optimizer's state, gathered in the same way as `gather_trained_weights`."""
    state = optimizer.state_dict()
    gathered: dict[int, dict[str, torch.Tensor]] = {}
    for number, entry in state["state"].items():
        for name, value in entry.items():
            whole = full_tensor(value)
            if keep:
                was_sharded = whole is not value
                gathered.setdefault(number, {})[name] = whole.cpu() if was_sharded else value
    return {**state, "state": gathered}


def set_trained_weights(model: nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Set the trained weights of `model`. Raise ValueError if one is missing or left over."""
    targets = trainable_parameters(model)
    weights = _with_model_names(weights, targets.keys())
    with torch.no_grad():
        for name, target in targets.items():
            target.copy_(shard_like(weights[name], target))


def _with_model_names(values: Mapping[str, Value], targets: KeysView[str]) -> dict[str, Value]:
    """Return the values under the model's own weight names. Raise ValueError if they differ."""
    if targets != values.keys():
        values = {PEFT_WEIGHT_NAME.sub(r"\1", name): value for name, value in values.items()}
    if targets != values.keys():
        raise ValueError("the checkpoint's weights are not this model's")
    return dict(values)


def _check_weights(model: nn.Module, file: Path) -> None:
    """Raise ValueError unless `file` has every trained weight in its shape. Read its header."""
    targets = trainable_parameters(model)
    with safe_open(file, "pt") as opened:
        shapes = {name: opened.get_slice(name).get_shape() for name in opened.keys()}  # noqa: SIM118
    for name, shape in _with_model_names(shapes, targets.keys()).items():
        if list(targets[name].shape) != list(shape):
            raise ValueError(f"{name} has the shape {list(shape)}")


def _check_optimizer(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Raise ValueError, TypeError or KeyError unless `file` has this optimizer's state."""
    state = torch.load(file, weights_only=True, mmap=True, map_location="cpu")  # only mapped
    # The saved state numbers the weights of all groups in order, as torch.optim does.
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    saved = [number for group in state["param_groups"] for number in group["params"]]
    if len(saved) != len(weights) or not {*state["state"]} <= {*saved}:
        raise ValueError("the optimizer's state is of other weights")
    for weight, number in zip(weights, saved, strict=True):
        for value in state["state"].get(number, {}).values():
            if value.dim() and value.shape != weight.shape:
                raise ValueError(f"the optimizer's state {number} has the shape {value.shape}")


def load_optimizer_state(optimizer: torch.optim.Optimizer, file: Path) -> None:
    """Set the optimizer to the state in `file`; each rank keeps its own shard."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    is_sharded = any(is_dtensor(weight) for weight in weights)
    # Mapped if sharded: the ranks of a machine share the pages, and each copies only its shard.
    state = torch.load(file, weights_only=True, mmap=is_sharded)
    for number, entry in state["state"].items():
        for name, value in entry.items():
            if value.shape == weights[number].shape:  # a moment; the step count is a scalar
                entry[name] = shard_like(value, weights[number])
    optimizer.load_state_dict(state)


def write_checkpoint(
    folder: Path,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: Position,
    *,
    writes: bool = True,
) -> None:
    """Write the checkpoint of `position` and remove older ones.

    All ranks of a sharded model must call this, one of them with `writes`.
    """
    weights = gather_trained_weights(model, keep=writes)
    state = gather_optimizer_state(optimizer, keep=writes)
    if not writes:
        return
    final = folder / f"step-{position.step:08d}"
    with atomic_folder(final, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        # Through an open file: otherwise torch hides the error of a full disk.
        with (temporary / OPTIMIZER).open("wb") as file:
            torch.save(state, file)
        digests = {name: sha256_file(temporary / name) for name in (TRAINED, OPTIMIZER)}
        record = {"position": asdict(position), "sha256": digests, "digest": position.digest()}
        (temporary / POSITION).write_text(json.dumps(record), encoding="utf-8")
    # Later checkpoints are damaged: the run was resumed from before them, and will write them
    # again when it reaches their steps.
    existing = sorted(folder.glob("step-*"))
    kept = [path for path in existing if path.name <= final.name][-CHECKPOINTS_KEPT:]
    for path in existing:
        if path not in kept:
            remove_path(path)


def restore_newest(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, curve: Path | None = None
) -> Position | None:
    """Set model and optimizer to the newest whole checkpoint. Return its position, or None.

    `curve` is the file that must hold every step up to the checkpoint. Nothing is changed before
    the whole checkpoint was checked.
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
            if is_out_of_memory(error):  # says nothing about the checkpoint
                raise
            print(f"checkpoint {path.name} is damaged ({error}); trying the previous", flush=True)
            continue
        set_trained_weights(model, load_file(path / TRAINED))
        load_optimizer_state(optimizer, path / OPTIMIZER)
        return position
    return None


def read_adapted_layers(folder: Path) -> tuple[str, ...]:
    """Return the layers that the newest readable checkpoint has adapters of; empty without one."""
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            with safe_open(path / TRAINED, "pt") as opened:
                names = [PEFT_WEIGHT_NAME.sub(r"\1", name) for name in opened.keys()]  # noqa: SIM118
        except DAMAGE_ERRORS:
            continue
        return tuple(sorted({name.rpartition(".lora_")[0] for name in names} - {""}))
    return ()


def read_position(checkpoint: Path) -> Position:
    """Return the position of a checkpoint whose files all exist and match their digests.

    Raise OSError, ValueError, KeyError or TypeError.
    """
    for name in (POSITION, TRAINED, OPTIMIZER):
        if not (checkpoint / name).is_file():  # reading a pipe or a device may never end
            raise ValueError(f"{name} is not a file")
    record = json.loads((checkpoint / POSITION).read_text(encoding="utf-8"))
    position = Position.from_json(record["position"])
    if checkpoint.name != f"step-{position.step:08d}":
        raise ValueError(f"{POSITION} is of step {position.step}")
    # Checkpoints of older versions have no digest of the position.
    if record.get("digest", position.digest()) != position.digest():
        raise ValueError(f"{POSITION} does not match its digest")
    for name in (TRAINED, OPTIMIZER):
        if sha256_file(checkpoint / name) != record["sha256"][name]:
            raise ValueError(f"{name} does not match its digest")
    return position


def write_best_weights(
    folder: Path, model: nn.Module, position: Position, *, writes: bool = True
) -> None:
    """Write the weights of the lowest validation loss so far; `writes` as in write_checkpoint."""
    weights = gather_trained_weights(model, keep=writes)
    if not writes:
        return
    with atomic_folder(folder / BEST, replace=True) as temporary:
        save_file(weights, temporary / TRAINED)
        record = {**asdict(position), "sha256": {TRAINED: sha256_file(temporary / TRAINED)}}
        (temporary / BEST_RECORD).write_text(json.dumps(record), encoding="utf-8")


def _check_best(best: Path, model: nn.Module) -> None:
    """Raise OSError, ValueError, KeyError or TypeError unless the best weights are whole."""
    record = json.loads((best / BEST_RECORD).read_text(encoding="utf-8"))
    _check_weights(model, best / TRAINED)
    # Those of older versions have no digest.
    if "sha256" in record and sha256_file(best / TRAINED) != record["sha256"][TRAINED]:
        raise ValueError(f"{BEST}/{TRAINED} does not match its digest")


def read_best_weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the weights of the lowest validation loss."""
    return load_file(folder / BEST / TRAINED)


def restore_best_weights(folder: Path, model: nn.Module) -> None:
    """Set the model to the weights of the lowest validation loss."""
    set_trained_weights(model, read_best_weights(folder))


def remove_checkpoints(folder: Path) -> None:
    """Remove the checkpoints of a completed run."""
    shutil.rmtree(folder, ignore_errors=True)
