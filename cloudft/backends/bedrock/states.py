"""Convert Bedrock's statuses of a customization job to cloudft's job state."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from pathlib import PurePosixPath
from typing import Literal

from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.storage.store import to_iso_time
from cloudft.types import TRAINING_BEGAN, JobState, LogLine, StatusDetails, validation_set_of

PhaseMember = Literal["validationDetails", "dataProcessingDetails", "trainingDetails"]
PHASES: Mapping[PhaseMember, tuple[str, str]] = {
    "validationDetails": ("validation_details", "validation of the data"),
    "dataProcessingDetails": ("data_processing_details", "data processing"),
    "trainingDetails": ("training_details", "training"),
}
"""Member of statusDetails -> the field of StatusDetails, and the phase's name in the log."""
ENDED_STATUSES = ("Completed", "Failed", "Stopped")


def iso_format(moment: datetime | None) -> str | None:
    """Return a time of the API as ISO 8601 in UTC."""
    return None if moment is None else to_iso_time(moment.timestamp())


def status_details(job: CustomizationJob) -> StatusDetails:
    """Return the status of each phase.

    Falls back to the job's status where statusDetails is missing: some accounts return none.
    """
    details = job.get("statusDetails") or {}
    known = {
        field: status
        for member, (field, _) in PHASES.items()
        if (status := details.get(member, {}).get("status"))
    }
    if not known and job["status"] == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    return StatusDetails(**known)


def typical_seconds(job: CustomizationJob, completed: Iterable[CustomizationJob]) -> float | None:
    """Return the median duration of completed jobs of the same model and type; None without any.

    Bedrock reports neither steps nor time left, so this is the only estimate of a job's end.
    """
    durations = [
        (other["endTime"] - other["creationTime"]).total_seconds()
        for other in completed
        if other.get("endTime")
        and other.get("baseModelArn") == job.get("baseModelArn")
        and other.get("customizationType") == job.get("customizationType")
    ]
    return statistics.median(durations) if durations else None


def to_job_state(
    job: CustomizationJob, artifacts: str | None, typical_seconds: float | None = None
) -> JobState:
    """Return the state of a job, from GetModelCustomizationJob or from a summary of the list."""
    status = job["status"]
    losses = [metric["validationLoss"] for metric in job.get("validationMetrics") or ()]
    summary = {
        "arn": job["jobArn"],
        "customModel": job.get("outputModelArn") or job.get("customModelArn"),
        TRAINING_BEGAN: _training_began(job),
        "trainingLoss": (job.get("trainingMetrics") or {}).get("trainingLoss"),
        "usualSeconds": typical_seconds,
        "validationLosses": losses or None,
        "validationSetLosses": _set_losses(job, losses) or None,
    }
    return JobState(
        id=job["jobName"],
        status=status,
        status_details=status_details(job),
        created_at=str(iso_format(job["creationTime"])),
        ended_at=iso_format(job.get("endTime")) if status in ENDED_STATUSES else None,
        failure_message=job.get("failureMessage") if status == "Failed" else None,
        artifacts=artifacts,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def _training_began(job: CustomizationJob) -> str | None:
    """Return when training began; None before it did, and where the account returns no phases."""
    phase = (job.get("statusDetails") or {}).get("trainingDetails") or {}
    if phase.get("status", "NotStarted") == "NotStarted":
        return None
    return iso_format(phase.get("creationTime"))


def validation_set_names(job: CustomizationJob) -> list[str | None]:
    """Return the name of each of the job's validators, in order; None for one that has none.

    The name is in that of the staged file: `validation-german.jsonl`.
    """
    validators = (job.get("validationDataConfig") or {}).get("validators") or ()
    return [validation_set_of(PurePosixPath(one["s3Uri"]).stem) for one in validators]


def _set_losses(job: CustomizationJob, losses: list[float]) -> dict[str, float]:
    """Return the loss of each named set; nothing where it is unknown whose they are.

    Bedrock names no validator in a metric: they are in the order of the validators.
    """
    names = validation_set_names(job)
    if len(names) != len(losses):
        return {}
    return {name: loss for name, loss in zip(names, losses, strict=True) if name is not None}


def log_lines(job: CustomizationJob) -> Iterator[LogLine]:
    """Yield the times of a job's phases as log lines: Bedrock keeps no log of a job."""
    for number, text in enumerate(_log_texts(job)):
        yield LogLine(str(number), text)


def _log_texts(job: CustomizationJob) -> Iterator[str]:
    yield f"{iso_format(job['creationTime'])} {job['jobArn']} created"
    details = job.get("statusDetails") or {}
    for member, (_, name) in PHASES.items():
        phase = details.get(member) or {}
        status = phase.get("status", "NotStarted")
        if status == "NotStarted":
            continue
        yield f"{iso_format(phase.get('creationTime'))} {name} began"
        if status in ENDED_STATUSES:
            yield f"{iso_format(phase.get('lastModifiedTime'))} {name} {status}"
    if job["status"] in ENDED_STATUSES:
        reason = f": {job.get('failureMessage')}" if job["status"] == "Failed" else ""
        yield f"{iso_format(job.get('endTime'))} job {job['status']}{reason}"
