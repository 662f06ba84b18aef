"""Translate SageMaker's description of a training job to a JobState, with what its log adds."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from cloudft.backends.sagemaker.responses import TrainingJob
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
    "Pending": "waiting for an instance",
    "LaunchingMLInstances": "launching the instance",
    "PreparingTrainingStack": "preparing the instance",
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
    "Interrupted": "interrupted: the spot instance was reclaimed",
    "Updating": "updating",
    "Restarting": "restarting",
}
"""`SecondaryStatus` as text for people."""
ENDED_PHASES: Mapping[str, DetailStatus] = {"Failed": "Failed", "Stopped": "Stopped"}
TIMEOUTS = {"MaxRuntimeExceeded", "MaxWaitTimeExceeded"}


def iso_format(moment: datetime | None) -> str | None:
    """Format a time of the API as ISO 8601 in UTC."""
    return None if moment is None else to_iso_time(moment.timestamp())


def to_job_state(
    description: TrainingJob,
    trainer_state: TrainerState | None = None,
    artifacts: str | None = None,
    *,
    attempts: int = 1,
    usd_per_hour: float | None = None,
) -> JobState:
    """Translate a DescribeTrainingJob response; `trainer_state` is the newest in the log."""
    status, secondary = (
        STATES[description["TrainingJobStatus"]],
        description.get("SecondaryStatus", "Starting"),
    )
    billed = description.get("BillableTimeInSeconds")
    summary = {
        **(trainer_state.summary if trainer_state else {}),
        "arn": description["TrainingJobArn"],
        "activity": ACTIVITIES[secondary],
        "attempts": attempts,
        "billableSeconds": billed,
        "billableTokens": description.get("BillableTokenCount"),
        "modelPackage": description.get("OutputModelPackageArn"),
        "usd": None if billed is None or usd_per_hour is None else billed / 3600 * usd_per_hour,
    }
    return JobState(
        id=str(description["HyperParameters"]["cloudft-job"]),
        status=status,
        status_details=_serverless_details(status, secondary)
        if description.get("ServerlessJobConfig")
        else _details(status, secondary, trainer_state),
        created_at=str(iso_format(description["CreationTime"])),
        ended_at=iso_format(
            description.get("TrainingEndTime") or description.get("LastModifiedTime")
        )
        if status in ("Completed", "Failed", "Stopped")
        else None,
        failure_message=_failure_message(description, status, secondary),
        artifacts=artifacts,
        progress=trainer_state.progress.to_training_progress()
        if trainer_state and trainer_state.progress
        else None,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def _failure_message(description: TrainingJob, status: str, secondary: str) -> str | None:
    if status == "Failed":
        return str(description.get("FailureReason") or "SageMaker gave no reason")
    if secondary in TIMEOUTS and description.get("ServerlessJobConfig"):
        return f"{ACTIVITIES[secondary]}; raise it, and submit with --force-new"
    if secondary in TIMEOUTS:
        return f"{ACTIVITIES[secondary]}; `cloudft resume` goes on from the last checkpoint"
    return None


def _details(status: str, secondary: str, trainer_state: TrainerState | None) -> StatusDetails:
    """Return the trainer's phases; a phase that was running when the job ended has ended too."""
    if status == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    details: dict[str, Any] = (
        vars(trainer_state.status_details.to_status_details()) if trainer_state else {}
    )
    if not details and secondary == "Training":
        details = {"validation_details": "InProgress"}
    end = ENDED_PHASES.get(status)
    if end:
        details = {name: end if word == "InProgress" else word for name, word in details.items()}
    return StatusDetails(**details)


def _serverless_details(status: str, secondary: str) -> StatusDetails:
    """Return the phases by the secondary status alone: no trainer of ours reports them.

    A job that has ended was in training, as far as its description says.
    """
    if status == "Completed":
        return StatusDetails("Completed", "Completed", "Completed")
    if status == "InProgress" and secondary not in ("Training", "Uploading"):
        return StatusDetails("Completed", "NotStarted", "NotStarted")
    training: DetailStatus = ENDED_PHASES.get(status, "InProgress")
    return StatusDetails("Completed", "Completed", training)
