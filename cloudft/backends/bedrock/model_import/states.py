"""Convert Bedrock's statuses of an import job to cloudft's job state."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from cloudft.backends.bedrock.api_shapes import ImportedModel, ImportJob
from cloudft.backends.bedrock.states import iso_format
from cloudft.types import MODEL_REMOVED, JobState, LogLine, Status, StatusDetails

JOB_STATUSES: Mapping[str, Status] = {
    "InProgress": "InProgress",
    "Completed": "Completed",
    "Failed": "Failed",
}
"""`ModelImportJobStatus` (botocore 1.44.5). An import can't be stopped."""


def to_job_state(job: ImportJob, model: ImportedModel | None = None) -> JobState:
    """Return the state of an import, from GetModelImportJob and from its model, if it has one."""
    status = JOB_STATUSES[job["status"]]
    completed = StatusDetails("Completed", "Completed", "Completed")
    model = model or {}
    units = model.get("customModelUnits") or {}
    summary = {
        "arn": job["jobArn"],
        "importedModel": job.get("importedModelArn"),
        "architecture": model.get("modelArchitecture"),
        "converse": model.get("instructSupported"),
        "unitsPerCopy": units.get("customModelUnitsPerModelCopy"),
        "unitsVersion": units.get("customModelUnitsVersion"),
    }
    return JobState(
        id=job["jobName"],
        status=status,
        status_details=completed if status == "Completed" else StatusDetails(),
        created_at=str(iso_format(job["creationTime"])),
        ended_at=iso_format(job.get("endTime")) if status != "InProgress" else None,
        failure_message=job.get("failureMessage") if status == "Failed" else None,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def with_model_removed(state: JobState) -> JobState:
    """Return the state of an import whose model was removed from Bedrock."""
    return replace(state, summary={**state.summary, MODEL_REMOVED: True})


def log_lines(job: ImportJob) -> Iterator[LogLine]:
    """Yield the start and the end of an import as log lines: Bedrock keeps no log of it."""
    yield LogLine("0", f"{iso_format(job['creationTime'])} {job['jobArn']} created")
    if job["status"] != "InProgress":
        reason = f": {job.get('failureMessage')}" if job["status"] == "Failed" else ""
        yield LogLine("1", f"{iso_format(job.get('endTime'))} import {job['status']}{reason}")
