"""Translate SageMaker's description of a training job to a JobState, with what its log adds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloudft.backends.trainer_documents import TrainerState
from cloudft.storage.store import to_iso_time
from cloudft.types import DetailStatus, JobState, Status, StatusDetails

STATES: Mapping[str, Status] = {
    "InProgress": "InProgress",
    "Completed": "Completed",
    "Failed": "Failed",
    "Stopping": "Stopping",
    "Stopped": "Stopped",
    "Deleting": "Stopped",
}
"""`TrainingJobStatus` (botocore 1.44.5). Only a job that has ended can be deleted."""
ACTIVITIES: Mapping[str, str] = {
    "Starting": "starting",
    "Pending": "waiting for a machine",
    "LaunchingMLInstances": "launching the machine",
    "PreparingTrainingStack": "preparing the machine",
    "Downloading": "downloading data",
    "DownloadingTrainingImage": "downloading the image",
    "Training": "training",
    "Uploading": "uploading the model",
    "Stopping": "stopping",
    "Stopped": "stopped",
    "MaxRuntimeExceeded": "stopped: max_runtime_seconds was reached",
    "MaxWaitTimeExceeded": "stopped: max_wait_seconds was reached",
    "Completed": "completed",
    "Failed": "failed",
    "Interrupted": "interrupted: the spot machine was taken away",
    "Updating": "updating",
    "Restarting": "restarting",
}
"""`SecondaryStatus`, in words."""
ENDED_PHASES: Mapping[str, DetailStatus] = {"Failed": "Failed", "Stopped": "Stopped"}
TIMEOUTS = {"MaxRuntimeExceeded", "MaxWaitTimeExceeded"}


def iso_format(moment: datetime | None) -> str | None:
    """Format a time of the API as ISO 8601 in UTC."""
    return None if moment is None else to_iso_time(moment.timestamp())


def to_job_state(
    answer: Mapping[str, Any],
    told: TrainerState | None = None,
    artifacts: str | None = None,
    *,
    attempts: int = 1,
    usd_per_hour: float | None = None,
) -> JobState:
    """Translate a DescribeTrainingJob response; `told` is the trainer's newest state in the log."""
    status, second = STATES[answer["TrainingJobStatus"]], answer.get("SecondaryStatus", "Starting")
    billed = answer.get("BillableTimeInSeconds")
    summary = {
        **(told.summary if told else {}),
        "arn": answer["TrainingJobArn"],
        "activity": ACTIVITIES[second],
        "attempts": attempts,
        "billableSeconds": billed,
        "usd": None if billed is None or usd_per_hour is None else billed / 3600 * usd_per_hour,
    }
    return JobState(
        id=str(answer["HyperParameters"]["cloudft-job"]),
        status=status,
        status_details=_details(status, second, told),
        created_at=str(iso_format(answer["CreationTime"])),
        ended_at=iso_format(answer.get("TrainingEndTime") or answer.get("LastModifiedTime"))
        if status in ("Completed", "Failed", "Stopped")
        else None,
        failure_message=_failure_message(answer, status, second),
        artifacts=artifacts,
        progress=told.progress.to_training_progress() if told and told.progress else None,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def _failure_message(answer: Mapping[str, Any], status: str, second: str) -> str | None:
    if status == "Failed":
        return str(answer.get("FailureReason") or "SageMaker gave no reason")
    if second in TIMEOUTS:
        return f"{ACTIVITIES[second]}; `cloudft resume` goes on from the last checkpoint"
    return None


def _details(status: str, second: str, told: TrainerState | None) -> StatusDetails:
    """Return the trainer's phases; a phase that was running when the job ended has ended too."""
    if status == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    given: dict[str, Any] = vars(told.status_details.to_status_details()) if told else {}
    if not given and second == "Training":
        given = {"validation_details": "InProgress"}
    end = ENDED_PHASES.get(status)
    if end:
        given = {name: end if word == "InProgress" else word for name, word in given.items()}
    return StatusDetails(**given)
