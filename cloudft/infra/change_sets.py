"""Create or change a stack through a change set: create it, show it, execute it, follow its events.

Nothing is done twice. A change set's name follows from the template, its parameters and the stack's
state. Its token belongs to this run only, so that a stack that was deleted can be created again. A
change set that is not executed is deleted.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TypedDict

import orjson

from cloudft.aws import stack as stacks
from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import (
    CloudRefused,
    ResourceConflict,
    ResourceNotFound,
    StackFailed,
    UsageError,
)
from cloudft.infra import ownership
from cloudft.infra import template as templates
from cloudft.infra.ownership import SERVICE

CAPABILITIES = ("CAPABILITY_IAM",)
ABANDONED_AFTER = timedelta(hours=1)
"""Age from which another deploy deletes a change set of cloudft that nobody executed."""
NO_CHANGES_REASONS = ("didn't contain changes", "No updates are to be performed")
NOT_EXECUTED = ("AVAILABLE", "UNAVAILABLE", "OBSOLETE")
CREATION_POLL_S = 1.0
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Change:
    """A change of one resource. `replacement` is `True`, `False` or `Conditional`."""

    action: str
    resource: str
    type: str
    physical_id: str | None
    replacement: str | None


@dataclass(frozen=True)
class ChangeSet:
    """A change set that waits for execution. `changes` is empty when nothing would change."""

    stack: str
    arn: str
    creates: bool
    token: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class StackEvent:
    """An event of a stack or of one of its resources."""

    id: str
    at: str
    resource: str
    type: str
    status: str
    reason: str | None


def find_stack(aws: Aws, name: str) -> Stack | None:
    """Return the stack, or None; an empty one in REVIEW_IN_PROGRESS counts as none."""
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound:
        return None
    return None if stack.status == "REVIEW_IN_PROGRESS" else stack


def is_in_progress(stack: Stack) -> bool:
    """Return whether an operation on the stack is running."""
    return stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS"


def outputs_as_parameters(aws: Aws, name: str, text: str) -> dict[str, str]:
    """Return the outputs of the stack `name` that are parameters of the template `text`.

    Raises ResourceNotFound, CloudRefused and CloudUnreachable; UsageError for a stack that is not
    ready.
    """
    stack = stacks.describe_stack(aws, name)
    if not stack.is_usable:
        fix = f"`cloudft infra status {name}` shows the reason."
        raise UsageError(f"the stack {name} is {stack.status}: it has no outputs yet", fix=fix)
    known = templates.parse_parameters(templates.parse_template(text))
    return {key: value for key, value in stack.outputs.items() if key in known}


def check_parameters(
    name: str,
    text: str,
    values: Mapping[str, str],
    before: Stack | None,
    *,
    require_all: bool = True,
) -> None:
    """Raise UsageError with everything that is wrong with the parameters."""
    template = templates.parse_template(text)
    known = templates.parse_parameters(template)
    kept = {k: v for k, v in (before.parameters if before else {}).items() if k in known}
    errors = list(
        templates.find_parameter_errors(template, {**kept, **values}, require_all=require_all)
    )
    if errors:
        fix = f"`cloudft infra synth --template {name}` shows every parameter and its rule."
        raise UsageError("; ".join(errors), fix=fix)


def create_change_set(
    aws: Aws,
    name: str,
    text: str,
    values: Mapping[str, str],
    before: Stack | None,
    sleep: Sleep = time.sleep,
) -> ChangeSet:
    """Create a change set for a template. Parameters without a value keep their current one.

    Raises UsageError for parameters that the template refuses and for a stack that is not
    cloudft's, CloudRefused, CloudUnreachable.
    """
    ownership.find_owned_stack(aws, name)
    _delete_abandoned(aws, name)
    token = secrets.token_hex(16)
    request: dict[str, object] = {
        "StackName": name,
        "ChangeSetName": ownership.CHANGE_SET_PREFIX + _digest(text, values, before),
        "ChangeSetType": "UPDATE" if before else "CREATE",
        "ClientToken": token,
        "TemplateBody": templates.format_request_body(text),
        "Parameters": _parameters(text, values, before),
        "Capabilities": list(CAPABILITIES),
        "Tags": [ownership.OWNER_TAG],
    }
    arn = _create_or_replace(aws, name, request)
    status, reason = _wait_until_created(aws, arn, sleep)
    is_empty = status == "FAILED" and any(text in reason for text in NO_CHANGES_REASONS)
    changes = () if is_empty else tuple(_list_changes(aws, arn))
    change_set = ChangeSet(name, arn, before is None, token, changes)
    if status == "FAILED" and not changes and not is_empty:
        delete_change_set(aws, change_set)
        raise StackFailed(f"can't create the change set of {name}: {reason}")
    return change_set


def _digest(text: str, values: Mapping[str, str], before: Stack | None) -> str:
    state = [before.id, before.changed_at] if before else []
    content = orjson.dumps([text, dict(values), state], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


class _NamedParameter(TypedDict):
    ParameterKey: str


class _RequestParameter(_NamedParameter, total=False):
    """A parameter of a request: a value, or the value that the stack has."""

    ParameterValue: str
    UsePreviousValue: bool


def _parameters(
    text: str, values: Mapping[str, str], before: Stack | None
) -> list[_RequestParameter]:
    known = templates.parse_parameters(templates.parse_template(text))
    previous = before.parameters if before else {}
    parameters: list[_RequestParameter] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in values.items()
    ]
    parameters += [
        {"ParameterKey": key, "UsePreviousValue": True}
        for key in known
        if key in previous and key not in values
    ]
    return parameters


def _create_or_replace(aws: Aws, name: str, request: Mapping[str, object]) -> str:
    """Create a change set and return its ARN; replace one that an interrupted run left."""
    failure = f"can't create the change set of {name}"
    try:
        return str(aws.call(failure, SERVICE, "create_change_set", **request)["Id"])
    except CloudRefused as error:
        if "AlreadyExists" not in error.message or "ChangeSet" not in error.message:
            raise
    existing = {"StackName": name, "ChangeSetName": request["ChangeSetName"]}
    aws.call(failure, SERVICE, "delete_change_set", **existing)
    return str(aws.call(failure, SERVICE, "create_change_set", **request)["Id"])


def _wait_until_created(aws: Aws, arn: str, sleep: Sleep) -> tuple[str, str]:
    """Return the status of a change set that CloudFormation has computed, and its reason."""
    while True:
        state = aws.call(
            "can't read the change set", SERVICE, "describe_change_set", ChangeSetName=arn
        )
        status = str(state["Status"])
        if not status.endswith(("PENDING", "IN_PROGRESS")):
            return status, state.get("StatusReason") or ""
        sleep(CREATION_POLL_S)


def _list_changes(aws: Aws, arn: str) -> Iterator[Change]:
    failure = "can't read the change set"
    for change in aws.paginate(
        failure, SERVICE, "describe_change_set", "Changes", ChangeSetName=arn
    ):
        resource = change["ResourceChange"]
        yield Change(
            resource["Action"],
            resource["LogicalResourceId"],
            resource["ResourceType"],
            resource.get("PhysicalResourceId") or None,
            resource.get("Replacement"),
        )


def delete_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Delete a change set that will not be executed, and the empty stack that it created."""
    failure = f"can't delete the change set of {change_set.stack}"
    with contextlib.suppress(ResourceNotFound):
        aws.call(failure, SERVICE, "delete_change_set", ChangeSetName=change_set.arn)
    if change_set.creates:
        # UsageError: meanwhile another tool has created a change set of its own.
        with contextlib.suppress(UsageError):
            delete_empty_stack(aws, change_set.stack)


def delete_empty_stack(aws: Aws, name: str) -> None:
    """Delete a stack without resources: before its first change set, or after a rollback.

    Raises UsageError for one that is not cloudft's.
    """
    stack = ownership.find_owned_stack(aws, name)
    if stack is not None and stack.status in ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"):
        aws.call(f"can't delete {name}", SERVICE, "delete_stack", StackName=stack.id)


def _delete_abandoned(aws: Aws, name: str) -> None:
    """Delete change sets of cloudft that nobody executed."""
    oldest = datetime.now(timezone.utc) - ABANDONED_AFTER
    failure = f"can't list the change sets of {name}"
    try:
        change_sets = list(
            aws.paginate(failure, SERVICE, "list_change_sets", "Summaries", StackName=name)
        )
    except CloudRefused:  # there is no such stack yet, or they may not be listed
        return
    for change_set in change_sets:
        is_ours = change_set["ChangeSetName"].startswith(ownership.CHANGE_SET_PREFIX)
        is_waiting = change_set.get("ExecutionStatus") in NOT_EXECUTED
        if is_ours and is_waiting and change_set["CreationTime"] < oldest:
            failure = f"can't delete the change set {change_set['ChangeSetName']}"
            arn = change_set["ChangeSetId"]
            aws.call(failure, SERVICE, "delete_change_set", ChangeSetName=arn)


def execute_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Start the changes. A lost response does not start them twice."""
    failure = f"can't execute the change set of {change_set.stack}"
    request = {"ChangeSetName": change_set.arn, "ClientRequestToken": change_set.token}
    try:
        aws.call(failure, SERVICE, "execute_change_set", **request)
    except CloudRefused:
        # Refused because a first attempt, whose response was lost, has started them.
        events = _list_events(aws, change_set.stack)
        if not any(token == change_set.token for token, _ in events):
            raise


def _list_events(aws: Aws, name: str) -> Iterator[tuple[str | None, StackEvent]]:
    """Yield the stack's events, newest first, each with the token of its request."""
    failure = f"can't read the events of {name}"
    for event in aws.paginate(
        failure, SERVICE, "describe_stack_events", "StackEvents", StackName=name
    ):
        yield (
            event.get("ClientRequestToken"),
            StackEvent(
                event["EventId"],
                event["Timestamp"].isoformat(timespec="seconds"),
                event["LogicalResourceId"],
                event["ResourceType"],
                event["ResourceStatus"],
                event.get("ResourceStatusReason"),
            ),
        )


def list_event_ids(aws: Aws, name: str) -> set[str]:
    """Return the ids of all events so far; none for a stack that does not exist."""
    try:
        return {event.id for _, event in _list_events(aws, name)}
    except CloudRefused:
        return set()


def follow_stack(
    aws: Aws,
    stack_id: str,
    seen: set[str],
    on_event: Callable[[StackEvent], None],
    poll_s: float = 3.0,
    sleep: Sleep = time.sleep,
) -> Stack:
    """Report events as they occur until no operation is running. Skip those in `seen`, by id.

    Raises StackFailed, with the first resource that failed, when the operation failed.
    """
    known, failed = set(seen), []
    while True:
        # The stack is read before its events: then no event of a finished operation is missed.
        stack = stacks.describe_stack(aws, stack_id)
        events = [event for _, event in _list_events(aws, stack_id) if event.id not in known]
        for event in reversed(events):
            known.add(event.id)
            on_event(event)
            # Cancelled resources are consequences of the first failure.
            if event.status.endswith("_FAILED") and "cancelled" not in (event.reason or ""):
                failed.append(event)
        if not is_in_progress(stack):
            break
        sleep(poll_s)
    if stack.status in SUCCESSFUL_STATUSES:
        return stack
    raise _failure_error(stack, failed)


SUCCESSFUL_STATUSES = stacks.USABLE_STATUSES - {
    "UPDATE_ROLLBACK_COMPLETE",
    "IMPORT_ROLLBACK_COMPLETE",
} | {"DELETE_COMPLETE"}
"""Statuses after a successful operation."""


def _failure_error(stack: Stack, failed: Sequence[StackEvent]) -> StackFailed:
    resources = [event for event in failed if event.type != "AWS::CloudFormation::Stack"]
    if resources:
        first = resources[0]
        message = f"{first.resource} ({first.type}): {first.reason}"
    else:
        message = stack.reason or "CloudFormation gives no reason"
    fix = f"fix that and redeploy; `cloudft infra status {stack.name}` shows the current state."
    if stack.status.startswith("DELETE"):
        fix = "fix that and run destroy again; everything else is already deleted."
    return StackFailed(f"{message} (the stack {stack.name} is now {stack.status})", fix=fix)


def set_termination_protection(aws: Aws, stack: Stack, on: bool) -> Stack:
    """Turn termination protection on or off; return the stack after that."""
    failure = f"can't change the termination protection of {stack.name}"
    request = {"StackName": stack.id, "EnableTerminationProtection": on}
    aws.call(failure, SERVICE, "update_termination_protection", **request)
    return stacks.describe_stack(aws, stack.id)


def raise_if_unusable(aws: Aws, stack: Stack) -> None:
    """Raise StackFailed, with a remedy, for a stack that CloudFormation can no longer change."""
    if stack.status in ("CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED"):
        fix = f"`cloudft infra destroy {stack.name}` deletes the rest of it; then deploy again."
    elif stack.status == "UPDATE_ROLLBACK_FAILED":
        words = ("cloudformation", "continue-update-rollback", "--stack-name", stack.name)
        fix = f"`{aws_cli_command(aws, *words)}`, then deploy again."
    else:
        return
    raise StackFailed(f"the stack {stack.name} is {stack.status}: {stack.reason}", fix=fix)


def raise_if_in_progress(stack: Stack) -> None:
    """Raise ResourceConflict for a stack on which an operation is running."""
    if is_in_progress(stack):
        fix = f"wait until it ends; `cloudft infra status {stack.name}` shows the state."
        raise ResourceConflict(f"the stack {stack.name} is {stack.status}", fix=fix)
