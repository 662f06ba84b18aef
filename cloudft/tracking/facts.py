"""What trackers get of a job besides its curve: parameters, digests, small files, evaluation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from cloudft.storage.artifacts import MANIFEST, MODEL, RESULT, TRAINING_CSV, VALIDATION_CSV
from cloudft.storage.store import JobRecord
from cloudft.tracking.curve import Curve
from cloudft.tracking.sink import EvaluationFacts, Outcome, RunFacts
from cloudft.types import JobState

EVALUATIONS = "evaluations"
"""As in evaluate/results.py."""
MAX_FILE_BYTES = 5 * 1024 * 1024
NO_PARAMETERS = ("tracking", "data", "tags", "prices", "evaluate", "name", "budget_usd")
"""Sections of the job file that do not describe the training."""


def run_facts(record: JobRecord) -> RunFacts:
    """Return what is known of a job from its start."""
    given = {key: value for key, value in record.spec.items() if key not in NO_PARAMETERS}
    given.pop("hyperparameters", None)  # the resolved ones are the record's
    parameters: dict[str, str | int | float] = dict(_flatten(given))
    parameters.update(record.hyper_parameters)
    parameters["customization_type"] = record.customization_type
    parameters["base_model"] = record.base_model
    tags = {
        "job_id": record.id,
        "job_name": record.name,
        "backend": record.backend,
        "data_sha256": str(record.manifest["sha256"]),
    }
    for role, file in record.manifest.get("files", {}).items():
        tags[f"data.{role}"] = f"sha256 {file['sha256']}, {file['records']} records"
    tags.update({f"tag.{key}": value for key, value in record.tags.items()})
    return RunFacts(record.id, record.name, parameters, tags, created_at(record))


def created_at(record: JobRecord) -> float:
    """Return when a job was created, in seconds since 1970."""
    return datetime.fromisoformat(record.created_at).timestamp()


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Mapping[str, str | int | float]:
    found: dict[str, str | int | float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            found.update(_flatten(value, f"{name}."))
        elif isinstance(value, (int, float, str)):
            found[name] = value
        elif value is not None:
            found[name] = msgspec.json.encode(value).decode()
    return found


def outcome(record: JobRecord, state: JobState, curve: Curve) -> Outcome:
    """Return how a job ended."""
    artifacts = None if state.artifacts is None else Path(state.artifacts)
    tags: dict[str, str] = {"status": state.status}
    if state.failure_message:
        tags["failure"] = state.failure_message
    if artifacts is not None:
        tags["artifacts"] = str(artifacts)
    for key in ("weights", "modelPackage", "model"):
        if isinstance(state.summary.get(key), str):
            tags[key] = state.summary[key]
    if artifacts is not None:
        tags.update(_model_files(artifacts / MODEL))
    last = max((point.step for point in curve.points), default=0)
    return Outcome(
        status=state.status,
        tags=tags,
        files=_small_files(artifacts),
        evaluation=newest_evaluation(record.folder, last),
        not_finite=curve.not_finite,
    )


def _small_files(artifacts: Path | None) -> list[Path]:
    names = (MANIFEST, RESULT, TRAINING_CSV, VALIDATION_CSV)
    files = [] if artifacts is None else [artifacts / name for name in names]
    return [f for f in files if f.is_file() and f.stat().st_size <= MAX_FILE_BYTES]


def _model_files(model: Path) -> dict[str, str]:
    """Return the sizes of the model's files: they stay where they are."""
    files = sorted(path for path in model.glob("*") if path.is_file())
    return {f"model.{path.name}": f"{path.stat().st_size} bytes" for path in files}


class _Data(msgspec.Struct):
    sha256: str


class _Evaluation(msgspec.Struct, rename="camel"):
    """The figures of an evaluation, without its records."""

    created_at: str
    task: str
    n: int
    metric: str
    base: dict[str, float | None]
    tuned: dict[str, float | None]
    data: _Data


def evaluated_at(job_folder: Path) -> str | None:
    """Return which evaluation of a job is the newest; None where there is none."""
    files = sorted((job_folder / EVALUATIONS).glob("*.json"))
    return files[-1].stem if files else None


def newest_evaluation(job_folder: Path, step: int) -> EvaluationFacts | None:
    """Return the figures of the newest evaluation, None where there is none that can be read."""
    name = evaluated_at(job_folder)
    if name is None:
        return None
    try:
        content = (job_folder / EVALUATIONS / f"{name}.json").read_bytes()
        found = msgspec.json.decode(content, type=_Evaluation)
        time = datetime.fromisoformat(found.created_at).timestamp()
    except (OSError, ValueError, msgspec.DecodeError):
        return None
    figures = {
        f"{model}/{metric}": value
        for model, values in (("base", found.base), ("tuned", found.tuned))
        for metric, value in values.items()
        if value is not None and math.isfinite(value)
    }
    notes = {
        "task": found.task,
        "records": str(found.n),
        "metric": found.metric,
        "data_sha256": found.data.sha256,
        "at": found.created_at,
    }
    return EvaluationFacts(name, time, step, figures, notes)
