"""Loss curves: appended to metrics.jsonl during training, then written as Bedrock's CSV files."""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from local_backend.job_dir import (
    TRAINING_COLUMNS,
    TRAINING_CSV,
    VALIDATION_COLUMNS,
    VALIDATION_CSV,
    utc_now,
)

TRAIN, VALIDATION = "train", "validation"


class CurvePoint(TypedDict):
    """One line of metrics.jsonl. An objective's metrics are further keys."""

    step: int
    epoch: int
    split: str
    loss: float
    perplexity: float
    learningRate: float | None
    tokensPerSecond: float | None
    timestamp: str


class SetPoint(CurvePoint, total=False):
    """A point of one of several validation sets. The point of all of them has no such name.

    The other keys are those of a job that learns from rewards; of a validation, only some.
    """

    validationSet: str
    reward: float
    rewardMin: float
    rewardMax: float
    responseLength: float
    entropy: float
    deadGroups: float
    cutAnswers: float
    clipFraction: float
    kl: float
    lengthCorrelation: float


GRAPH_NAMES = {
    "reward": "critic/rewards/mean",
    "rewardMin": "critic/rewards/min",
    "rewardMax": "critic/rewards/max",
    "entropy": "actor/entropy",
    "clipFraction": "actor/pg_clipfrac",
    "kl": "actor/kl_loss",
    "responseLength": "response_length/mean",
    "cutAnswers": "response_length/clip_ratio",
    "deadGroups": "dead_groups",
}
"""Columns of a job that learns from rewards: Bedrock's console names its graphs so, after verl.
What Bedrock's own files have is not known. The last one is ours."""
VALIDATION_GRAPH_NAMES = {
    "reward": "val-score/rewards/mean@1",
    "entropy": "actor/entropy",
    "responseLength": "response_length/mean",
}


def perplexity(loss: float) -> float:
    """Return exp(loss), the perplexity of a mean log-likelihood loss in nats; inf on overflow."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


class LossCurve:
    """metrics.jsonl, open for appending."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        """Open the file and keep its first `keep_bytes`; later points are of steps not yet done."""
        # Opened for appending and cut: those steps will be taken again and appended once more.
        self.file = path.open("ab")
        self.file.truncate(keep_bytes)
        self.file.seek(0, os.SEEK_END)

    def append(
        self,
        split: str,
        step: int,
        epoch: int,
        values: Mapping[str, float | str],
        learning_rate: float | None = None,
        tokens_per_second: float | None = None,
    ) -> None:
        """Append one point. `step` and `epoch` count from 0, as in Bedrock's files.

        `values` has the loss, and before it the name of one of several validation sets: SageMaker
        finds the job's validation loss where split and loss are side by side.
        """
        row = {
            "step": step,
            "epoch": epoch,
            "split": split,
            **values,
            "learningRate": learning_rate,
            "tokensPerSecond": tokens_per_second,
            "timestamp": utc_now(),
        }
        # One write for a line, so that readers who poll the file see only whole ones.
        self.file.write(json.dumps(row).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """Make the curve durable and return its length in bytes."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        """Close the file."""
        self.file.close()


class NullLossCurve(LossCurve):
    """The curve of a rank that does not write."""

    def __init__(self) -> None:
        """Open nothing."""

    def append(self, *_: object, **__: object) -> None:
        """Ignore the point."""

    def sync(self) -> int:
        """Return 0: nothing is written."""
        return 0

    def close(self) -> None:
        """Close nothing."""


def read_curve(path: Path) -> list[SetPoint]:
    """Return every point so far, without a last line that a crash cut short."""
    points = []
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            points.append(json.loads(line))
    return points


def validate_curve(path: Path, length: int, steps: int) -> None:
    """Raise OSError or ValueError unless the first `length` bytes are the curve of `steps` steps.

    Each step must be there once, in order.
    """
    with path.open("rb") as file:
        content = file.read(length)
    if len(content) < length or (content and not content.endswith(b"\n")):
        raise ValueError(f"{path.name} does not reach the checkpoint")
    expected_step = 0
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            point = json.loads(line)
            split, step = point["split"], point["step"]
            float(point["loss"]), float(point["perplexity"]), int(point["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}:{number} is no point of the curve") from error
        if split not in (TRAIN, VALIDATION) or (split == TRAIN and step != expected_step):
            raise ValueError(f"{path.name}:{number} is not the point of step {expected_step}")
        expected_step += split == TRAIN
    if expected_step != steps:
        raise ValueError(f"{path.name} has {expected_step} steps of {steps}")


def write_csv_files(points: Sequence[SetPoint], artifacts: Path) -> None:
    """Write Bedrock's step-wise training metrics and, with validation, its metrics.

    Each of several validation sets has a file more, in a folder of its name.
    """
    has_reward = any("reward" in point for point in points)
    graphs = GRAPH_NAMES if has_reward else {}
    columns = (*TRAINING_COLUMNS, *graphs.values())
    write_csv(artifacts / TRAINING_CSV, columns, csv_rows(points, TRAIN, graphs))
    graphs = VALIDATION_GRAPH_NAMES if has_reward else {}
    columns = (*VALIDATION_COLUMNS, *graphs.values())
    if rows := csv_rows(points, VALIDATION, graphs):
        write_csv(artifacts / VALIDATION_CSV, columns, rows)
    for name in sorted({p["validationSet"] for p in points if "validationSet" in p}):
        path = artifacts / VALIDATION_CSV
        rows = csv_rows(points, VALIDATION, graphs, name)
        write_csv(path.parent / name / path.name, columns, rows)


def set_losses_at(points: Sequence[SetPoint], step: int | None) -> dict[str, float]:
    """Return the losses of several validation sets after `step` optimizer steps."""
    at = [p for p in points if "validationSet" in p and p["step"] + 1 == step]
    return {p["validationSet"]: p["loss"] for p in at}


def measures_at(points: Sequence[SetPoint], step: int | None) -> dict[str, float]:
    """Return what an objective has measured of the validation data after `step` steps.

    That is every value of the point that is none of a CurvePoint's, and the perplexity.
    """
    for point in points:
        is_whole = point["split"] == VALIDATION and "validationSet" not in point
        if is_whole and point["step"] + 1 == step:
            common = CurvePoint.__annotations__.keys() - {"perplexity"}
            return {k: float(v) for k, v in point.items() if k not in common}  # type: ignore[arg-type]
    return {}


def csv_rows(
    points: Sequence[SetPoint],
    split: str,
    graphs: Iterable[str],
    validation_set: str | None = None,
) -> list[tuple[object, ...]]:
    """Return the rows of one curve; `graphs` are further keys, empty where a point lacks one."""
    return [
        (p["step"], p["epoch"], p["loss"], p["perplexity"], *(p.get(name, "") for name in graphs))
        for p in points
        if p["split"] == split and p.get("validationSet") == validation_set
    ]


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[tuple[object, ...]]) -> None:
    """Write one CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
