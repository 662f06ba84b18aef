"""Bedrock's words for a job, as ours: the one table."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from cloudft.storage.store import to_iso_time
from cloudft.types import JobState, LogLine, StatusDetails

PHASES = {
    "validationDetails": ("validation_details", "validation of the data"),
    "dataProcessingDetails": ("data_processing_details", "data processing"),
    "trainingDetails": ("training_details", "training"),
}


def iso_format(moment: datetime | None) -> str | None:
    """A time of the API's, ISO 8601 in UTC."""
    return None if moment is None else to_iso_time(moment.timestamp())


def status_details(answer: Mapping[str, Any]) -> StatusDetails:
    """The phases. An account that tells none of them still tells the job's status."""
    told = answer.get("statusDetails") or {}
    given = {
        ours: told[theirs]["status"]
        for theirs, (ours, _) in PHASES.items()
        if told.get(theirs, {}).get("status")
    }
    if not given and answer["status"] == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    return StatusDetails(**given)


def typical_seconds(
    answer: Mapping[str, Any], completed: Iterable[Mapping[str, Any]]
) -> float | None:
    """What completed jobs of the same model and type took, the middle one; None without any.

    Bedrock tells no steps, and no time: this is all that can be expected by.
    """
    alike = ("baseModelArn", "customizationType")
    took = [
        (job["endTime"] - job["creationTime"]).total_seconds()
        for job in completed
        if job.get("endTime") and all(job.get(name) == answer.get(name) for name in alike)
    ]
    return statistics.median(took) if took else None


def to_job_state(
    answer: Mapping[str, Any], artifacts: str | None, typical_seconds: float | None = None
) -> JobState:
    """A job as GetModelCustomizationJob tells it, or as a summary of the list does."""
    status = answer["status"]
    losses = answer.get("validationMetrics") or []
    training = (answer.get("trainingMetrics") or {}).get("trainingLoss")
    summary = {
        "arn": answer["jobArn"],
        "customModel": answer.get("outputModelArn") or answer.get("customModelArn"),
        "trainingLoss": training,
        "usualSeconds": typical_seconds,
        "validationLosses": [loss["validationLoss"] for loss in losses] or None,
    }
    return JobState(
        id=answer["jobName"],
        status=status,
        status_details=status_details(answer),
        created_at=str(iso_format(answer["creationTime"])),
        ended_at=iso_format(answer.get("endTime"))
        if status in ("Completed", "Failed", "Stopped")
        else None,
        failure_message=answer.get("failureMessage") if status == "Failed" else None,
        artifacts=artifacts,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def log_lines(answer: Mapping[str, Any]) -> Iterator[LogLine]:
    """What Bedrock tells of the course of a job: it has no log, but times of its phases."""
    for number, text in enumerate(_log_texts(answer)):
        yield LogLine(str(number), text)


def _log_texts(answer: Mapping[str, Any]) -> Iterator[str]:
    yield f"{iso_format(answer['creationTime'])} {answer['jobArn']} created"
    for name, (_, words) in PHASES.items():
        phase = (answer.get("statusDetails") or {}).get(name) or {}
        status = phase.get("status", "NotStarted")
        if status == "NotStarted":
            continue
        yield f"{iso_format(phase.get('creationTime'))} {words} began"
        if status in ("Completed", "Failed", "Stopped"):
            yield f"{iso_format(phase.get('lastModifiedTime'))} {words} {status}"
    if answer["status"] in ("Completed", "Failed", "Stopped"):
        why = f": {answer.get('failureMessage')}" if answer["status"] == "Failed" else ""
        yield f"{iso_format(answer.get('endTime'))} job {answer['status']}{why}"
