"""Have jobs created by the account's own state machine (infra/jobs.yaml).

One execution is one plan: its name is the plan's token. Once the job exists, it is found by its
name like any other job; before that, the job's state is that of the execution.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path

import orjson

from cloudft.aws.client import Aws, Response
from cloudft.aws.s3 import s3_uri
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
"""Name of the plan that the state machine reads, next to the job's output."""
START_OPERATION = "start_execution"
EXECUTION_STATUSES: Mapping[str, Status] = {
    "RUNNING": "InProgress",
    "PENDING_REDRIVE": "InProgress",
    "SUCCEEDED": "Completed",
    "FAILED": "Failed",
    "TIMED_OUT": "Failed",
    "ABORTED": "Stopped",
}
"""Step Functions' status of an execution -> cloudft's. A test proves that none is missing."""


def api_calls(staged: StagedJob) -> list[ApiCall]:
    """Return the calls that replace a plan's creation; none for a plan that itself creates."""
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
    """Return the ARN of the execution in a plan's or a record's request; None where it has none."""
    if not planned.machine:
        return None
    start = planned.machine[-1].parameters
    machine = str(start["stateMachineArn"]).replace(":stateMachine:", ":execution:")
    return f"{machine}:{start['name']}"


def recorded_execution(folder: Path) -> str | None:
    """Return the ARN of the execution in the record of a job's folder; None where it has none."""
    recorded = recorded_request(Store(folder.parent).get_or_none(folder.name))
    try:
        return execution_arn(recorded) if recorded else None
    except LookupError:
        return None


def start_execution(aws: Aws, plan: Plan) -> None:
    """Write the plan to S3 and start the execution that reads it, unless it was started before.

    An execution's state holds at most 256 KiB, so the list of sources is left out of the plan that
    it reads; plan.json has it.
    """
    put, started = (call.parameters for call in planned_request(plan).machine)
    without_sources = dataclasses.replace(
        plan, manifest=dataclasses.replace(plan.manifest, sources=())
    )
    failure = f"{s3_uri(put['Bucket'], put['Key'])} can't be written"
    body = orjson.dumps(to_json(without_sources))
    aws.call(failure, "s3", "put_object", **put | {"Body": body})
    try:
        aws.call(f"{plan.job_id} can't be started", "stepfunctions", START_OPERATION, **started)
    except ResourceConflict:  # an earlier response was lost, or another submit runs beside this
        return


def describe_execution(aws: Aws, execution: str, job_id: str) -> JobState | None:
    """Return the state of a job that its execution has not created yet; None without execution."""
    failure = f"can't read the execution of {job_id}"
    try:
        response = aws.call(failure, "stepfunctions", "describe_execution", executionArn=execution)
    except ResourceNotFound:
        return None
    status = EXECUTION_STATUSES[response["status"]]
    return JobState(
        id=job_id,
        status=status,
        status_details=StatusDetails(),
        created_at=str(states.iso_format(response["startDate"])),
        ended_at=states.iso_format(response.get("stopDate")),
        failure_message=_failure_message(response) if status == "Failed" else None,
        summary={"queuedIn": execution},
    )


def _failure_message(execution: Response) -> str:
    """Return the error message of a finished execution."""
    error = execution.get("error") or execution["status"]
    return f"{error}: {execution['cause']}" if execution.get("cause") else str(error)


def log_lines(state: JobState) -> Iterator[LogLine]:
    """Yield the log lines of a job that has not been created yet."""
    yield LogLine(
        "0", f"{state.created_at} {state.summary['queuedIn']} started: it creates the job"
    )
    if state.has_ended:
        reason = f": {state.failure_message}" if state.failure_message else ""
        yield LogLine("1", f"{state.ended_at} {state.status}{reason}")


def stop_execution(aws: Aws, state: JobState) -> None:
    """Stop the execution of a job that has not been created yet, unless it has ended."""
    if state.has_ended:
        return
    aws.call(
        f"the execution of {state.id} can't be stopped",
        "stepfunctions",
        "stop_execution",
        executionArn=state.summary["queuedIn"],
        cause="stopped by `cloudft stop`",
    )
