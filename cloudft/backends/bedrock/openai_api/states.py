"""Convert jobs and events of the OpenAI-compatible API to cloudft's states, logs and curves.

Source of the statuses: openai-python 3.57, `types/fine_tuning/fine_tuning_job.py`.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from cloudft.errors import CloudRefused
from cloudft.storage import artifacts as layout
from cloudft.storage.store import to_iso_time
from cloudft.types import (
    TRAINING_BEGAN,
    JobState,
    LogLine,
    Metric,
    Split,
    Status,
    StatusDetails,
)

Json = Mapping[str, Any]
"""A job, an event or a file as the service returns it."""
STATUSES: Mapping[str, tuple[Status, StatusDetails]] = {
    "validating_files": ("InProgress", StatusDetails("InProgress")),
    "queued": ("InProgress", StatusDetails("Completed", "InProgress")),
    "running": ("InProgress", StatusDetails("Completed", "Completed", "InProgress")),
    "succeeded": ("Completed", StatusDetails("Completed", "Completed", "Completed")),
    "failed": ("Failed", StatusDetails()),
    "cancelled": ("Stopped", StatusDetails()),
}
"""Status of cloudft, and those of the phases, by the API's status."""
LOSSES: Mapping[Split, tuple[str, ...]] = {
    "train": ("train_loss", "actor_pg_loss", "loss"),
    "validation": ("valid_loss", "full_valid_loss"),
}
REWARDS: Mapping[Split, tuple[str, ...]] = {
    "train": ("critic_rewards_mean", "train_reward_mean"),
    "validation": ("val_rewards_mean", "valid_reward_mean", "full_valid_reward_mean"),
}
"""Names of a step's figures in an event's data. Sources: AWS Machine Learning Blog, 2026-03-25
(critic_rewards_mean); OpenAI API reference, "Fine-tuning job checkpoint" and "Reinforcement
fine-tuning" (the others)."""
GRAPHS = {
    "actor_entropy": "actor/entropy",
    "actor_kl_loss": "actor/kl_loss",
    "response_length_mean": "response_length/mean",
}
"""Further figures, and their columns in the files of a finished job. Source: the same blog."""
FIELDS = {
    "actor_entropy": "entropy",
    "actor_kl_loss": "kl",
    "response_length_mean": "response_length",
}
"""The same, and the fields of a Metric."""
REWARD_COLUMNS: Mapping[Split, str] = {
    "train": "critic/rewards/mean",
    "validation": "val-score/rewards/mean@1",
}

CURVES: tuple[tuple[Split, str, tuple[str, ...]], ...] = (
    ("validation", layout.VALIDATION_CSV, layout.VALIDATION_COLUMNS),
    ("train", layout.TRAINING_CSV, layout.TRAINING_COLUMNS),
)
"""Split, file and columns of each curve, in the order in which they are written."""


def has_ended(job: Json) -> bool:
    """Return whether a job's status is final."""
    return _status(job)[0] in ("Completed", "Failed", "Stopped")


def _status(job: Json) -> tuple[Status, StatusDetails]:
    """Return the statuses of a job. Raise CloudRefused for one that this cloudft does not know."""
    status = str(job["status"])
    if status not in STATUSES:
        message = f"the job {job['id']} has the status {status}, which this cloudft does not know"
        raise CloudRefused(message, fix="update cloudft.")
    return STATUSES[status]


def to_job_state(job: Json, name: str, artifacts: str | None) -> JobState:
    """Return the state of a job. `name` is its id in cloudft, as far as it is known."""
    status, details = _status(job)
    began = job["created_at"] if details.training_details != "NotStarted" else None
    summary = {
        "fineTuningJob": job["id"],
        "customModel": job.get("fine_tuned_model"),
        # The API does not say when training began: what is billed began no earlier than this.
        TRAINING_BEGAN: None if began is None else to_iso_time(began),
        "trainedTokens": job.get("trained_tokens"),
    }
    finished = job.get("finished_at")
    error = job.get("error") or {}
    return JobState(
        id=name,
        status=status,
        status_details=details,
        created_at=to_iso_time(job["created_at"]),
        ended_at=to_iso_time(finished) if finished and has_ended(job) else None,
        failure_message=error.get("message") if status == "Failed" else None,
        artifacts=artifacts,
        summary={key: value for key, value in summary.items() if value is not None},
    )


def log_lines(events: Iterable[Json], after: str | None) -> Iterator[LogLine]:
    """Yield the events, which are in order of time, behind the one with the id `after`."""
    is_behind = after is None
    for event in events:
        if is_behind:
            time = to_iso_time(event["created_at"]) if "created_at" in event else ""
            yield LogLine(event["id"], f"{time} {_event_text(event)}".strip())
        is_behind = is_behind or event["id"] == after


def _event_text(event: Json) -> str:
    text = str(event.get("message", ""))
    if event.get("type") != "metrics":
        return text
    figures = event.get("data") or {}
    numbers = [f"{k} {v:g}" for k, v in figures.items() if isinstance(v, (int, float))]
    return f"{text}: {', '.join(numbers)}" if numbers else text


def to_metrics(events: Iterable[Json]) -> Iterator[Metric]:
    """Yield the points in events with figures; several of one split and step count once."""
    seen: set[tuple[int, str]] = set()
    for point in figures_by_step(events):
        for split in ("train", "validation"):
            loss = _loss(point, split)
            if loss is None or (point["step"], split) in seen:
                continue
            seen.add((point["step"], split))
            yield Metric(
                step=point["step"],
                epoch=int(point.get("epoch", 0)),
                split=split,
                loss=loss,
                perplexity=_perplexity(loss),
                learning_rate=None,
                tokens_per_second=None,
                timestamp=point["timestamp"],
                **_reward_fields(point, split),
            )


def _reward_fields(point: Json, split: Split) -> dict[str, Any]:
    """Return the fields of a Metric that only jobs that learn from rewards have."""
    prefix = "" if split == "train" else "val_"
    values = {field: point.get(f"{prefix}{name}") for name, field in FIELDS.items()}
    values["reward"] = _first(point, REWARDS[split])
    known = Metric.__dataclass_fields__
    return {name: value for name, value in values.items() if name in known}


def figures_by_step(events: Iterable[Json]) -> list[dict[str, Any]]:
    """Return the figures of each step, in order; those of one step together."""
    by_step: dict[int, dict[str, Any]] = {}
    for event in events:
        data = event.get("data") or {}
        step = data.get("step", data.get("step_number"))
        if event.get("type") == "metrics" and isinstance(step, (int, float)):
            numbers = {k: v for k, v in data.items() if isinstance(v, (int, float))}
            when = to_iso_time(event["created_at"]) if "created_at" in event else ""
            point = by_step.setdefault(int(step), {"timestamp": when})
            point.update({**numbers, "step": int(step)})
    return [by_step[step] for step in sorted(by_step)]


def _first(point: Json, names: Sequence[str]) -> float | None:
    return next((float(point[name]) for name in names if name in point), None)


def _loss(point: Json, split: Split) -> float | None:
    """Return the loss of a step; where only its mean reward is reported, minus that."""
    loss = _first(point, LOSSES[split])
    reward = _first(point, REWARDS[split])
    return -reward if loss is None and reward is not None else loss


def _perplexity(loss: float) -> float:
    try:
        return math.exp(loss)
    except OverflowError:
        return math.inf


def write_curves(events: Iterable[Json], folder: Path) -> None:
    """Write the files of a finished job's curves, in Bedrock's layout. Training comes last.

    Its file marks the artifacts as complete.
    """
    points = figures_by_step(events)
    for split, name, columns in CURVES:
        rows = list(_rows(points, split, columns[2]))
        if not rows and split != "train":
            continue
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        extra = [
            c for c in (*REWARD_COLUMNS.values(), *GRAPHS.values()) if any(c in r for r in rows)
        ]
        with path.open("w", encoding="utf-8", newline="") as stream:
            writer = csv.DictWriter(stream, [*columns, *extra], restval="")
            writer.writeheader()
            writer.writerows(rows)


def _rows(points: Sequence[Json], split: Split, loss_column: str) -> Iterator[dict[str, Any]]:
    for point in points:
        loss = _loss(point, split)
        if loss is None:
            continue
        row = {
            "step_number": point["step"],
            "epoch_number": int(point.get("epoch", 0)),
            loss_column: loss,
            "perplexity": _perplexity(loss),
        }
        reward = _first(point, REWARDS[split])
        if reward is not None:
            row[REWARD_COLUMNS[split]] = reward
        if split == "train":
            row |= {column: point[name] for name, column in GRAPHS.items() if name in point}
        yield row
