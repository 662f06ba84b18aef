"""The loss curves: appended while training, and as Bedrock's two CSV files at the end."""

from __future__ import annotations

import csv
import json
import math
import os
from pathlib import Path
from typing import Any

from local_backend.job_dir import (
    TRAINING_COLUMNS,
    TRAINING_CSV,
    VALIDATION_COLUMNS,
    VALIDATION_CSV,
    utc_now,
)

TRAIN, VALIDATION = "train", "validation"


def perplexity(loss: float) -> float:
    """exp(loss): the perplexity of a mean negative log-likelihood in nats; inf when too large."""
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


class LossCurve:
    """metrics.jsonl, open for appending."""

    def __init__(self, path: Path, keep_bytes: int) -> None:
        """Go on after the first `keep_bytes`; points behind them belong to steps not yet done."""
        self.file = path.open("ab")
        self.file.truncate(keep_bytes)
        self.file.seek(0, os.SEEK_END)

    def append(
        self,
        split: str,
        step: int,
        epoch: int,
        loss: float,
        learning_rate: float | None = None,
        tokens_per_second: float | None = None,
    ) -> None:
        """Append one point. `step` and `epoch` count from 0, as in Bedrock's files."""
        row = {
            "step": step,
            "epoch": epoch,
            "split": split,
            "loss": loss,
            "perplexity": perplexity(loss),
            "learningRate": learning_rate,
            "tokensPerSecond": tokens_per_second,
            "timestamp": utc_now(),
        }
        self.file.write(json.dumps(row).encode() + b"\n")
        self.file.flush()

    def sync(self) -> int:
        """The curve's length so far, safe on disk."""
        os.fsync(self.file.fileno())
        return self.file.tell()

    def close(self) -> None:
        """No more points."""
        self.file.close()


class NullLossCurve(LossCurve):
    """What a process has that does not write."""

    def __init__(self) -> None:
        """Nothing is open."""

    def append(self, *_: Any, **__: Any) -> None:
        """Nothing."""

    def sync(self) -> int:
        """Nothing is there."""
        return 0

    def close(self) -> None:
        """Nothing is open."""


def read_curve(path: Path) -> list[dict[str, Any]]:
    """Every point so far. A last line that a crash cut short is left out."""
    points = []
    for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
            points.append(json.loads(line))
    return points


def validate_curve(path: Path, length: int, steps: int) -> None:
    """Raise OSError or ValueError unless the first `length` bytes are the curve of `steps` steps.

    Each of them must be there once, in order.
    """
    with path.open("rb") as file:
        content = file.read(length)
    if len(content) < length or (content and not content.endswith(b"\n")):
        raise ValueError(f"{path.name} does not reach the checkpoint")
    seen = 0
    for number, line in enumerate(content.splitlines(), start=1):
        try:
            point = json.loads(line)
            split, step = point["split"], point["step"]
            float(point["loss"]), float(point["perplexity"]), int(point["epoch"])
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path.name}:{number} is no point of the curve") from error
        if split not in (TRAIN, VALIDATION) or (split == TRAIN and step != seen):
            raise ValueError(f"{path.name}:{number} is not the point of step {seen}")
        seen += split == TRAIN
    if seen != steps:
        raise ValueError(f"{path.name} has {seen} steps of {steps}")


def write_csv_files(points: list[dict[str, Any]], artifacts: Path) -> None:
    """Bedrock's step-wise training metrics and, if there was validation, its metrics."""
    rows = {
        split: [
            (p["step"], p["epoch"], p["loss"], p["perplexity"])
            for p in points
            if p["split"] == split
        ]
        for split in (TRAIN, VALIDATION)
    }
    write_csv(artifacts / TRAINING_CSV, TRAINING_COLUMNS, rows[TRAIN])
    if rows[VALIDATION]:
        write_csv(artifacts / VALIDATION_CSV, VALIDATION_COLUMNS, rows[VALIDATION])


def write_csv(path: Path, columns: tuple[str, ...], rows: list[tuple[Any, ...]]) -> None:
    """One CSV file with a header."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream)
        writer.writerow(columns)
        writer.writerows(rows)
