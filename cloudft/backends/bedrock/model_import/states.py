"""Bedrock's words for an import job, as ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from cloudft.backends.bedrock.states import iso_format
from cloudft.types import MODEL_REMOVED, JobState, LogLine, Status, StatusDetails

JOB_STATUSES: Mapping[str, Status] = {
    "InProgress": "InProgress",
    "Completed": "Completed",
    "Failed": "Failed",
}
"""`ModelImportJobStatus` (botocore 1.44.5). An import can't be stopped."""


def to_job_state(answer: Mapping[str, Any], model: Mapping[str, Any] | None = None) -> JobState:
    """An import as GetModelImportJob tells it, with what GetImportedModel told of its model."""
    status = JOB_STATUSES[answer["status"]]
    done = StatusDetails("Completed", "Completed", "Completed")
    units = (model or {}).get("customModelUnits") or {}
    summary = {
        "arn": answer["jobArn"],
        "importedModel": answer.get("importedModelArn"),
        "architecture": (model or {}).get("modelArchitecture"),
        "converse": (model or {}).get("instructSupported"),
        "unitsPerCopy": units.get("customModelUnitsPerModelCopy"),
        "unitsVersion": units.get("customModelUnitsVersion"),
    }
    return JobState(
        id=answer["jobName"],
        status=status,
        status_details=done if status == "Completed" else StatusDetails(),
        created_at=str(iso_format(answer["creationTime"])),
        ended_at=iso_format(answer.get("endTime")) if status != "InProgress" else None,
        failure_message=answer.get("failureMessage") if status == "Failed" else None,
        summary={name: value for name, value in summary.items() if value is not None},
    )


def with_model_removed(state: JobState) -> JobState:
    """Return the state of an import whose model is there no more."""
    return replace(state, summary={**state.summary, MODEL_REMOVED: True})


def log_lines(answer: Mapping[str, Any]) -> Iterator[LogLine]:
    """What Bedrock tells of the course of an import: its beginning and its end."""
    yield LogLine("0", f"{iso_format(answer['creationTime'])} {answer['jobArn']} created")
    if answer["status"] != "InProgress":
        why = f": {answer.get('failureMessage')}" if answer["status"] == "Failed" else ""
        yield LogLine("1", f"{iso_format(answer.get('endTime'))} import {answer['status']}{why}")
