"""Jobs that the account's own state machine creates (infra/jobs.yaml).

One execution is one plan: its name is the plan's token. As soon as the job is there it is the
truth, and is found by its name as any other; before that the execution tells how it stands.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft.aws.client import Aws
from cloudft.backends.aws_base.api_call import (
    PLAN_FILE,
    ApiCall,
    AwsRequest,
    planned_request,
    recorded_request,
)
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request, states
from cloudft.errors import ResourceConflict, ResourceNotFound
from cloudft.storage.store import Store
from cloudft.types import JobState, LogLine, Plan, Status, StatusDetails, to_json

QUEUED_PLAN_FILE = "queued.json"
"""Beside the job's output: the plan that the machine reads."""
START_OPERATION = "start_execution"
EXECUTION_STATUSES: Mapping[str, Status] = {
    "RUNNING": "InProgress",
    "PENDING_REDRIVE": "InProgress",
    "SUCCEEDED": "Completed",
    "FAILED": "Failed",
    "TIMED_OUT": "Failed",
    "ABORTED": "Stopped",
}
"""Step Functions' words for an execution, as ours. All of botocore's are here: a test says so."""


def api_calls(staged: StagedJob) -> list[ApiCall]:
    """Return the calls that replace a plan's creation; none where no state machine creates the job."""
    spec = staged.job.spec.bedrock
    if not spec.via_stack or spec.machine_arn is None:
        return []
    own = request.api_calls(staged).plan_file.parameters
    key = own["Key"].removesuffix(PLAN_FILE) + QUEUED_PLAN_FILE
    start = {
        "stateMachineArn": spec.machine_arn,
        "name": request.request_token(staged),
        "input": orjson.dumps({"bucket": own["Bucket"], "key": key}).decode(),
    }
    return [
        ApiCall(service="s3", operation="put_object", parameters=own | {"Key": key}),
        ApiCall(service="stepfunctions", operation=START_OPERATION, parameters=start),
    ]


def execution_arn(planned: AwsRequest) -> str | None:
    """Return the execution's ARN, from a plan's request or a record's; None where there is none."""
    if not planned.machine:
        return None
    start = planned.machine[-1].parameters
    machine = str(start["stateMachineArn"]).replace(":stateMachine:", ":execution:")
    return f"{machine}:{start['name']}"


def recorded_execution(folder: Path) -> str | None:
    """The execution's ARN, from the record in a job's folder; None where there is none."""
    recorded = recorded_request(Store(folder.parent).get_or_none(folder.name))
    try:
        return execution_arn(recorded) if recorded else None
    except LookupError:
        return None


def start_execution(aws: Aws, plan: Plan) -> None:
    """Put the plan where the machine reads it, and start its execution, unless it was started.

    An execution's memory holds 256 KiB, so the list of sources is left out; plan.json has it.
    """
    put, started = (call.parameters for call in planned_request(plan).machine)
    short = dataclasses.replace(plan, manifest=dataclasses.replace(plan.manifest, sources=()))
    what = f"s3://{put['Bucket']}/{put['Key']} can't be written"
    aws.call(what, "s3", "put_object", **put | {"Body": orjson.dumps(to_json(short))})
    try:
        aws.call(f"{plan.job_id} can't be started", "stepfunctions", START_OPERATION, **started)
    except ResourceConflict:  # a try whose answer was lost, or another submit beside this
        return


def describe_execution(aws: Aws, execution: str, job_id: str) -> JobState | None:
    """How the execution of a job stands that is not there yet; None where there is none."""
    what = f"the execution of {job_id} can't be looked at"
    try:
        told = aws.call(what, "stepfunctions", "describe_execution", executionArn=execution)
    except ResourceNotFound:
        return None
    status = EXECUTION_STATUSES[told["status"]]
    return JobState(
        id=job_id,
        status=status,
        status_details=StatusDetails(),
        created_at=str(states.iso_format(told["startDate"])),
        ended_at=states.iso_format(told.get("stopDate")),
        failure_message=_failure_message(told) if status == "Failed" else None,
        summary={"queuedIn": execution},
    )


def _failure_message(told: Mapping[str, Any]) -> str:
    """What the machine said of its end."""
    error = told.get("error") or told["status"]
    return f"{error}: {told['cause']}" if told.get("cause") else str(error)


def log_lines(state: JobState) -> Iterator[LogLine]:
    """What there is to say of a job that is not there yet."""
    yield LogLine(
        "0", f"{state.created_at} {state.summary['queuedIn']} started: it creates the job"
    )
    if state.has_ended:
        why = f": {state.failure_message}" if state.failure_message else ""
        yield LogLine("1", f"{state.ended_at} {state.status}{why}")


def stop_execution(aws: Aws, state: JobState) -> None:
    """End the execution of a job that is not there yet; one that has ended is left as it is."""
    if state.has_ended:
        return
    given = {"executionArn": state.summary["queuedIn"], "cause": "stopped by `cloudft stop`"}
    what = f"the execution of {state.id} can't be stopped"
    aws.call(what, "stepfunctions", "stop_execution", **given)
