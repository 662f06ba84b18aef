"""The layout of a finished job's artifacts, the same for every backend, and its metrics.

    training_artifacts/step_wise_training_metrics.csv
    validation_artifacts/post_fine_tuning_validation/validation_metrics.csv
    validation_artifacts/post_fine_tuning_validation/SET/validation_metrics.csv  (several sets)
    manifest.json       the staged data
    model/              adapter or weights, tokenizer, template (of backends that export them)

The layout and the columns are Bedrock's (user guide, "Analyze the results of a model customization
job"). Public reports show the validation file at another depth, so files are found by name.
"""

from __future__ import annotations

import csv
import dataclasses
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cloudft.errors import BadDocument, JobStateConflict
from cloudft.storage.atomic_files import as_store_error
from cloudft.types import Metric, Split

TRAINING_CSV = "training_artifacts/step_wise_training_metrics.csv"
VALIDATION_CSV = "validation_artifacts/post_fine_tuning_validation/validation_metrics.csv"
TRAINING_COLUMNS = ("step_number", "epoch_number", "training_loss", "perplexity")
VALIDATION_COLUMNS = ("step_number", "epoch_number", "validation_loss", "perplexity")
MANIFEST = "manifest.json"
MODEL = "model"
RESULT = "result.json"

_FILES: tuple[tuple[Split, str, str], ...] = (
    ("train", TRAINING_CSV, "training_loss"),
    ("validation", VALIDATION_CSV, "validation_loss"),
)


def read_metrics(artifacts: Path) -> Iterator[Metric]:
    """Yield every point of the curves in a finished job's files, training first.

    Raise BadDocument for a file that is not such a table.
    """
    for split, name, column in _FILES:
        for path in sorted(artifacts.rglob(Path(name).name)):
            yield from _points(path, split, column, _set_of(path, artifacts))


def validation_csv(name: str | None) -> str:
    """Return the path of a validation set's curve; of all validation data without a name."""
    path = PurePosixPath(VALIDATION_CSV)
    return str(path if name is None else path.parent / name / path.name)


def _set_of(path: Path, artifacts: Path) -> str | None:
    """Return the name of the validation set whose curve this is; None for any other."""
    name = path.parent.name
    return name if path == artifacts / validation_csv(name) else None


def combine_validation(points: Iterable[Metric]) -> list[Metric]:
    """Return one validation curve, by step.

    It is the trainer's own, of all validation data. Bedrock has a curve for each of several sets
    and none of all: then it is their unweighted mean, at the steps that all of them have.
    """
    found = sorted((p for p in points if p.split == "validation"), key=lambda p: p.step)
    own = [p for p in found if p.validation_set is None]
    if own:
        return own
    names = {p.validation_set for p in found}
    by_step: dict[int, list[Metric]] = {}
    for point in found:
        by_step.setdefault(point.step, []).append(point)
    return [_mean(same) for same in by_step.values() if len(same) == len(names)]


def _mean(points: list[Metric]) -> Metric:
    """Return the point of the mean loss; its perplexity is that of the mean."""
    loss = sum(p.loss for p in points) / len(points)
    try:
        perplexity = math.exp(loss)
    except OverflowError:
        perplexity = math.inf
    return dataclasses.replace(points[0], loss=loss, perplexity=perplexity, validation_set=None)


def _points(path: Path, split: Split, column: str, validation_set: str | None) -> Iterator[Metric]:
    reader: Any = None
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            for row in reader:
                yield Metric(
                    step=int(float(row["step_number"])),
                    epoch=int(float(row["epoch_number"])),
                    split=split,
                    loss=float(row[column]),
                    perplexity=float(row["perplexity"]),
                    learning_rate=None,
                    tokens_per_second=None,
                    timestamp="",
                    validation_set=validation_set,
                    **_reward_values(row),
                )
    except (OSError, ValueError, OverflowError, KeyError, TypeError, csv.Error) as error:
        why = f"there is no column {error}" if isinstance(error, KeyError) else str(error)
        raise BadDocument(
            f"{path.name} is damaged: {why}",
            file=str(path),
            line=reader.line_num if reader is not None else None,
            fix="remove the folder artifacts: what a job left on AWS is brought here again.",
        ) from error


_GRAPHS = {
    "critic/rewards/mean": "reward",
    "val-score/rewards/mean@1": "reward",
    "actor/kl_loss": "kl",
    "response_length/mean": "response_length",
    "actor/entropy": "entropy",
    "dead_groups": "dead_groups",
    "actor/pg_clipfrac": "clip_fraction",
}
"""Columns of a job that learned from rewards (local_backend/training/loss_curve.py), and the fields
of a Metric that they are."""


def _reward_values(row: Mapping[str, str]) -> dict[str, float]:
    return {field: float(row[name]) for name, field in _GRAPHS.items() if row.get(name)}


def is_complete(artifacts: Path) -> bool:
    """Return whether the files exist without which a job is not Completed."""
    return (artifacts / TRAINING_CSV).is_file()


def copy_artifacts(
    job_id: str,
    artifacts: str | None,
    to: Path,
    on_copied: Callable[[int], None] | None = None,
) -> Path:
    """Copy what a job has left to `to`, and return `to`. Raise JobStateConflict, StoreError.

    `artifacts` is None before there are any; `to` must not exist. `on_copied` gets the size of each
    file that was copied, in bytes.
    """
    if artifacts is None:
        raise JobStateConflict(f"{job_id} has left no artifacts yet", fix="wait for its end.")
    if to.exists():
        raise JobStateConflict(f"{to} exists already", fix="name a folder that does not.")

    def copy_file(source: str, target: str) -> str:
        copied = shutil.copy2(source, target)
        if on_copied is not None:
            on_copied(Path(target).stat().st_size)
        return copied

    with as_store_error(f"the artifacts of {job_id} can't be copied", to):
        shutil.copytree(artifacts, to, copy_function=copy_file)
    return to
