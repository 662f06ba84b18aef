"""A damaged checkpoint: the run ends with the curve of an unbroken one, or fails before a step."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from processes import read_jsonl
from safetensors.torch import load_file, save_file
from trainer_run import TrainerRun, run_to_checkpoint, run_trainer

from local_backend.training import train_loop
from local_backend.training.checkpoint import OPTIMIZER, POSITION, TRAINED

BROKEN_OFF = 6
"""Steps that were done when the run was killed; 12 in all, validated after each 4."""
NEWEST_ALONE = ("unknown-key", "another-step", "weights-cut", "optimizer-that-is-none")
Damage = Callable[[Path], Any]


def start(folder: Path, model: Path) -> Path:
    data = {"train": tiny.pairs(16), "validation": tiny.pairs(4)}
    lora = {"r": 4, "alpha": 8, "dropout": 0.1, "target_modules": "all-linear"}
    return tiny.write_job_dir(folder, model, data, epochCount=3, lora=lora)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> TrainerRun:
    """Return the uninterrupted run."""
    return run_trainer(start(tmp_path_factory.mktemp("whole") / "job", tiny_model))


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Return the folder of a killed run: two checkpoints, the best weights, the curve."""
    folder = start(tmp_path_factory.mktemp("broken") / "job", tiny_model)
    run_to_checkpoint(folder, BROKEN_OFF)
    names = sorted(path.name for path in (folder / "checkpoints").iterdir())
    assert names == ["best", f"step-{BROKEN_OFF - 1:08d}", f"step-{BROKEN_OFF:08d}"]
    return folder


def record(change: Callable[[dict[str, Any]], Any]) -> Damage:
    """Change position.json as JSON."""

    def damage(checkpoint: Path) -> None:
        content = json.loads((checkpoint / POSITION).read_text())
        changed = change(content)
        (checkpoint / POSITION).write_text(json.dumps(content if changed is None else changed))

    return damage


def position(**changes: Any) -> Damage:
    return record(lambda content: content["position"].update(changes))


def content(name: str, change: Callable[[bytes], bytes]) -> Damage:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes()))


def flipped(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x10]) + content[middle + 1 :]


def half(content: bytes) -> bytes:
    return content[: len(content) // 2]


def resealed(name: str, change: Callable[[Path], Any]) -> Damage:
    """Change a file of a checkpoint, and give position.json its new digest."""

    def damage(checkpoint: Path) -> None:
        change(checkpoint / name)
        sha = hashlib.sha256((checkpoint / name).read_bytes()).hexdigest()
        record(lambda content: content["sha256"].update({name: sha}))(checkpoint)

    return damage


def weights(change: Callable[[str, torch.Tensor], tuple[str, torch.Tensor]]) -> Callable[..., None]:
    return lambda file: save_file(dict(change(n, t) for n, t in load_file(file).items()), file)


def other_optimizer(file: Path) -> None:
    torch.save(torch.optim.AdamW([torch.nn.Parameter(torch.ones(3))]).state_dict(), file)


CHECKPOINT: dict[str, Damage] = {
    "unknown-key": position(best_gradient=0.5),
    "unknown-key-beside": record(lambda content: content.update(machine="b")),
    "missing-key": record(lambda content: content["position"].pop("tokens")),
    "missing-position": record(lambda content: content.pop("position")),
    "missing-digests": record(lambda content: content.update(sha256={})),
    "wrong-digest": record(lambda content: content["sha256"].update({TRAINED: "0" * 64})),
    "text-for-a-number": position(step="6"),
    "null-for-a-number": position(metrics_bytes=None),
    "list-for-a-number": position(best_loss=[0.5]),
    "negative-step": position(step=-1),
    "another-step": position(step=3),
    "another-loss": position(best_loss=-1.0),
    "another-length": position(metrics_bytes=10),
    "no-micro-batch": position(micro=[0, 0]),
    "another-document": record(lambda content: [1, 2]),
    "null": lambda folder: (folder / POSITION).write_text("null"),
    "empty": content(POSITION, lambda content: b""),
    "cut": content(POSITION, half),
    "no-text": content(POSITION, lambda content: b"\xff\xfe\x00"),
    "position-gone": lambda folder: (folder / POSITION).unlink(),
    "weights-cut": content(TRAINED, half),
    "weights-flipped": content(TRAINED, flipped),
    "weights-of-another-shape": resealed(
        TRAINED, weights(lambda name, tensor: (name, tensor[:1].contiguous()))
    ),
    "weights-of-another-model": resealed(TRAINED, weights(lambda name, t: (f"x.{name}", t))),
    "weights-that-are-none": resealed(TRAINED, lambda file: file.write_bytes(b"no tensors")),
    "optimizer-cut": content(OPTIMIZER, half),
    "optimizer-of-another-model": resealed(OPTIMIZER, other_optimizer),
    "optimizer-that-is-none": resealed(OPTIMIZER, lambda file: torch.save([1], file)),
    "a-pipe-for-a-file": lambda folder: (
        (folder / POSITION).unlink(),
        os.mkfifo(folder / POSITION),
    ),
    "a-file-for-a-folder": lambda folder: (shutil.rmtree(folder), folder.write_text("")),
}
BEST: dict[str, Damage] = {
    "best-gone": shutil.rmtree,
    "best-cut": content(TRAINED, half),
    "best-flipped": content(TRAINED, flipped),
    "best-record": content("best.json", half),
}
CURVE: dict[str, Damage] = {
    "curve-gone": lambda file: file.unlink(),
    "curve-cut": lambda file: file.write_bytes(half(file.read_bytes())),
    "curve-of-nulls": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "curve-garbled": lambda file: file.write_bytes(file.read_bytes().replace(b'"loss"', b'"lss"')),
    "curve-of-another": lambda file: file.write_bytes(
        b"".join(file.read_bytes().splitlines(keepends=True)[2:]).ljust(file.stat().st_size, b"\n")
    ),
}


def curve(run: TrainerRun) -> list[tuple[Any, ...]]:
    content = read_jsonl(run.path / "metrics.jsonl")
    return [(p["split"], p["step"], p["epoch"], round(p["loss"], 5)) for p in content]


@pytest.mark.parametrize(
    ("kind", "which"),
    [
        *((kind, "every") for kind in CHECKPOINT),
        *((kind, "newest") for kind in (*NEWEST_ALONE, "a-file-for-a-folder")),
        *((kind, "the one") for kind in (*BEST, *CURVE)),
    ],
)
def test_a_damaged_checkpoint_never_changes_the_curve(
    broken: Path,
    whole: TrainerRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    which: str,
) -> None:
    job = tmp_path / "job"
    shutil.copytree(broken, job)
    if kind in CHECKPOINT:
        folders = sorted((job / "checkpoints").glob("step-*"))
        for folder in folders[-1:] if which == "newest" else folders:
            CHECKPOINT[kind](folder)
    else:
        damage = BEST.get(kind) or CURVE[kind]
        damage(job / "checkpoints" / "best" if kind in BEST else job / "metrics.jsonl")
    taken: list[int] = []
    take_step = train_loop.train_step
    monkeypatch.setattr(
        train_loop, "train_step", lambda run: (taken.append(run.position.step), take_step(run))
    )
    monkeypatch.setattr(
        train_loop, "MAX_CHECKPOINT_TIME_SHARE", float("inf")
    )  # one after every step
    run = run_trainer(job)
    if run.status == "Failed":
        assert taken == [], "it fails before the first step"
        assert any(name in run.message for name in (POSITION, "metrics.jsonl", "best"))
    else:
        assert curve(run) == curve(whole), run.log
        assert run.summary["tuned"] == whole.summary["tuned"]
        assert run.rows("training_artifacts/step_wise_training_metrics.csv") == whole.rows(
            "training_artifacts/step_wise_training_metrics.csv"
        )
        adapter = "adapter_model.safetensors"
        expected = load_file(whole.model / adapter)
        for name, tensor in load_file(run.model / adapter).items():
            assert torch.allclose(tensor, expected[name], atol=1e-5), name
        if which == "newest":
            assert taken[0] >= BROKEN_OFF - 1, "the checkpoint before is taken"
