"""Present copies and created models as customization jobs, and their state as a job's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any, Literal

from cloudft.backends.bedrock.api_shapes import CustomizationJob
from cloudft.backends.bedrock.states import iso_format
from cloudft.storage.store import JobRecord
from cloudft.types import MODEL_REMOVED, JobState, LogLine, StatusDetails

MODEL_STATUSES: Mapping[str, Literal["InProgress", "Completed", "Failed"]] = {
    "Creating": "InProgress",
    "Active": "Completed",
    "Failed": "Failed",
}
"""`ModelStatus` of a custom model (botocore 1.44.5) -> the status of a job."""


def copy_as_job(copy: Mapping[str, Any], name: str, base_model_arn: str) -> CustomizationJob:
    """Return a copy job, as GetModelCopyJob or its list has it, in the form of a training job."""
    job = _job(copy["jobArn"], name, copy["status"], copy["creationTime"], base_model_arn)
    return _with_result(job, str(copy["targetModelArn"]), copy.get("failureMessage"))


def model_as_job(model: Mapping[str, Any], name: str, base_model_arn: str) -> CustomizationJob:
    """Return what CreateCustomModel made in the form of a training job."""
    status = MODEL_STATUSES[model.get("modelStatus", "Active")]
    job = _job(model["modelArn"], name, status, model["creationTime"], base_model_arn)
    return _with_result(job, str(model["modelArn"]), model.get("failureMessage"))


def _job(
    arn: str,
    name: str,
    status: Literal["InProgress", "Completed", "Failed"],
    created: datetime,
    base_model_arn: str,
) -> CustomizationJob:
    return {
        "jobArn": arn,
        "jobName": name,
        "status": status,
        "creationTime": created,
        "baseModelArn": base_model_arn,
    }


def _with_result(job: CustomizationJob, model_arn: str, failure: str | None) -> CustomizationJob:
    # A copy job names its target from the start; there is no model before the end.
    if job["status"] == "Completed":
        job["outputModelArn"] = model_arn
    if job["status"] == "Failed" and failure:
        job["failureMessage"] = failure
    return job


def to_job_state(job: CustomizationJob) -> JobState:
    """Return the state. Bedrock says when the creation began, not when it ended."""
    status = job["status"]
    completed = StatusDetails("Completed", "Completed", "Completed")
    summary = {"arn": job["jobArn"], "customModel": job.get("outputModelArn")}
    return JobState(
        id=job["jobName"],
        status=status,
        status_details=completed if status == "Completed" else StatusDetails(),
        created_at=str(iso_format(job["creationTime"])),
        failure_message=job.get("failureMessage"),
        summary={name: value for name, value in summary.items() if value is not None},
    )


def log_lines(job: CustomizationJob) -> Iterator[LogLine]:
    """Yield the start and the result as log lines: Bedrock keeps no log of it."""
    yield LogLine("0", f"{iso_format(job['creationTime'])} {job['jobArn']} created")
    if job["status"] != "InProgress":
        result = job.get("failureMessage") or job.get("outputModelArn", "")
        yield LogLine("1", f"{job['status']}: {result}")


def with_model_removed(state: JobState) -> JobState:
    """Return the state of a job whose model was removed from Bedrock."""
    return replace(state, summary={**state.summary, MODEL_REMOVED: True})


def removed_model_state(record: JobRecord) -> JobState:
    """Return the state of a job that Bedrock knows no more, because its model was removed."""
    return JobState(
        id=record.id,
        status="Completed",
        status_details=StatusDetails("Completed", "Completed", "Completed"),
        created_at=record.created_at,
        summary={"arn": record.backend_job_id, MODEL_REMOVED: True},
    )
