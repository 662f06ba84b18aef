"""A stack made or changed through a change set: proposed, looked at, executed, followed.

Nothing is done twice: a change set's name follows from the template, its parameters and the state
that it was made for; its token is this run's own, so that what was removed can be made again. One
that is not executed is removed again.
"""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import Any

import orjson

from cloudft.aws import stack as stacks
from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import CloudRefused, ResourceConflict, ResourceNotFound, StackFailed, UsageError
from cloudft.infra import ownership
from cloudft.infra import template as templates

SERVICE = "cloudformation"
CAPABILITIES = ("CAPABILITY_IAM",)
ABANDONED_AFTER = timedelta(hours=1)
"""How old a change set of ours must be that nobody executed, before another deploy removes it."""
NO_CHANGES_REASONS = ("didn't contain changes", "No updates are to be performed")
Sleep = Callable[[float], None]


@dataclass(frozen=True)
class Change:
    """What would happen to one resource. `replacement`: it would be made anew."""

    action: str
    resource: str
    type: str
    physical_id: str | None
    replacement: str | None


@dataclass(frozen=True)
class ChangeSet:
    """A change set that waits. `changes` is empty when there is nothing to change."""

    stack: str
    arn: str
    creates: bool
    token: str
    changes: Sequence[Change]


@dataclass(frozen=True)
class StackEvent:
    """Something that happened to a stack, or to a resource of it."""

    id: str
    at: str
    resource: str
    type: str
    status: str
    reason: str | None


def find_stack(aws: Aws, name: str) -> Stack | None:
    """The stack, or None; an empty one that only waits for its first change set is none."""
    try:
        found = stacks.describe_stack(aws, name)
    except ResourceNotFound:
        return None
    return None if found.status == "REVIEW_IN_PROGRESS" else found


def is_in_progress(stack: Stack) -> bool:
    """True while something is done to it."""
    return stack.status.endswith("_IN_PROGRESS") and stack.status != "REVIEW_IN_PROGRESS"


def outputs_as_parameters(aws: Aws, name: str, text: str) -> dict[str, str]:
    """The outputs of the stack `name` that are parameters of the template `text`.

    Raises AwsNotFound, AwsRefused and AwsUnreachable; UsageError for a stack that is not ready.
    """
    stack = stacks.describe_stack(aws, name)
    if not stack.is_usable:
        fix = f"`cloudft infra status {name}` tells why."
        raise UsageError(f"the stack {name} is {stack.status}: it has no outputs yet", fix=fix)
    wanted = templates.parse_parameters(templates.parse_template(text))
    return {key: value for key, value in stack.outputs.items() if key in wanted}


def check_parameters(name: str, text: str, values: Mapping[str, str], before: Stack | None) -> None:
    """Raise UsageError with everything that is wrong with the parameters."""
    template = templates.parse_template(text)
    known = templates.parse_parameters(template)
    kept = {k: v for k, v in (before.parameters if before else {}).items() if k in known}
    broken = list(templates.find_parameter_errors(template, {**kept, **values}))
    if broken:
        fix = f"`cloudft infra synth --template {name}` shows every parameter and its rule."
        raise UsageError("; ".join(broken), fix=fix)


def create_change_set(
    aws: Aws,
    name: str,
    text: str,
    values: Mapping[str, str],
    before: Stack | None,
    sleep: Sleep = time.sleep,
) -> ChangeSet:
    """What a template and its parameters would change. Values not given stay as they are.

    Raises UsageError for parameters that the template does not take and for a stack that is not
    cloudft's, AwsRefused, AwsUnreachable.
    """
    ownership.find_owned_stack(aws, name)
    _delete_abandoned(aws, name)
    token = secrets.token_hex(16)
    request = {
        "StackName": name,
        "ChangeSetName": ownership.CHANGE_SET_PREFIX + _digest(text, values, before),
        "ChangeSetType": "UPDATE" if before else "CREATE",
        "ClientToken": token,
        "TemplateBody": templates.format_request_body(text),
        "Parameters": _parameters(text, values, before),
        "Capabilities": list(CAPABILITIES),
        "Tags": [ownership.OWNER_TAG],
    }
    made = _create_or_replace(aws, name, request)
    told = _wait_until_created(aws, made["Id"], sleep)
    changes = () if _is_empty(told) else tuple(_list_changes(aws, told))
    proposal = ChangeSet(name, str(made["Id"]), before is None, token, changes)
    if told["Status"] == "FAILED" and changes == () and not _is_empty(told):
        delete_change_set(aws, proposal)
        raise StackFailed(f"the changes of {name} can't be worked out: {told['StatusReason']}")
    return proposal


def _digest(text: str, given: Mapping[str, str], before: Stack | None) -> str:
    state = [before.id, before.changed_at] if before else []
    content = orjson.dumps([text, dict(given), state], option=orjson.OPT_SORT_KEYS)
    return hashlib.sha256(content).hexdigest()[:32]


def _parameters(text: str, given: Mapping[str, str], before: Stack | None) -> list[dict[str, Any]]:
    known = templates.parse_parameters(templates.parse_template(text))
    there = before.parameters if before else {}
    values: list[dict[str, Any]] = [
        {"ParameterKey": key, "ParameterValue": value} for key, value in given.items()
    ]
    values += [
        {"ParameterKey": key, "UsePreviousValue": True}
        for key in known
        if key in there and key not in given
    ]
    return values


def _create_or_replace(aws: Aws, name: str, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """A new change set: one of this name that a broken-off run left is made again."""
    what = f"the changes of {name} can't be worked out"
    try:
        return aws.call(what, SERVICE, "create_change_set", **request)
    except CloudRefused as error:
        if "AlreadyExists" not in error.message or "ChangeSet" not in error.message:
            raise
    which = {"StackName": name, "ChangeSetName": request["ChangeSetName"]}
    aws.call(what, SERVICE, "delete_change_set", **which)
    return aws.call(what, SERVICE, "create_change_set", **request)


def _wait_until_created(aws: Aws, arn: str, sleep: Sleep) -> Mapping[str, Any]:
    what = "the change set can't be looked at"
    while True:
        told = aws.call(what, SERVICE, "describe_change_set", ChangeSetName=arn)
        if not told["Status"].endswith(("PENDING", "IN_PROGRESS")):
            return told
        sleep(1.0)


def _is_empty(told: Mapping[str, Any]) -> bool:
    reason = told.get("StatusReason") or ""
    return told["Status"] == "FAILED" and any(words in reason for words in NO_CHANGES_REASONS)


def _list_changes(aws: Aws, told: Mapping[str, Any]) -> Iterator[Change]:
    while True:
        for change in told.get("Changes", ()):
            one = change["ResourceChange"]
            yield Change(
                one["Action"],
                one["LogicalResourceId"],
                one["ResourceType"],
                one.get("PhysicalResourceId") or None,
                one.get("Replacement"),
            )
        if not told.get("NextToken"):
            return
        more = {"ChangeSetName": told["ChangeSetId"], "NextToken": told["NextToken"]}
        told = aws.call("the change set can't be read", SERVICE, "describe_change_set", **more)


def delete_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Remove a change set that will not be executed, and the empty stack that it brought."""
    what = f"the change set of {change_set.stack} can't be removed"
    with contextlib.suppress(ResourceNotFound):
        aws.call(what, SERVICE, "delete_change_set", ChangeSetName=change_set.arn)
    if change_set.creates:
        with contextlib.suppress(UsageError):  # another tool has made changes of its own meanwhile
            delete_empty_stack(aws, change_set.stack)


def delete_empty_stack(aws: Aws, name: str) -> None:
    """Remove a stack that holds nothing: it waits for a first change set, or was rolled back.

    Raises UsageError for one that is not cloudft's.
    """
    found = ownership.find_owned_stack(aws, name)
    if found is None:
        return
    if found.status in ("REVIEW_IN_PROGRESS", "ROLLBACK_COMPLETE"):
        aws.call(f"{name} can't be removed", SERVICE, "delete_stack", StackName=found.id)


def _delete_abandoned(aws: Aws, name: str) -> None:
    """Remove change sets of ours that nobody executed."""
    oldest = datetime.now(timezone.utc) - ABANDONED_AFTER
    what = f"the change sets of {name} can't be listed"
    try:
        told = aws.call(what, SERVICE, "list_change_sets", StackName=name)
    except CloudRefused:  # there is no such stack yet, or they may not be listed
        return
    for one in told.get("Summaries", ()):
        waits = one.get("ExecutionStatus") in ("AVAILABLE", "UNAVAILABLE", "OBSOLETE")
        if (
            one["ChangeSetName"].startswith(ownership.CHANGE_SET_PREFIX)
            and waits
            and one["CreationTime"] < oldest
        ):
            what = f"the change set {one['ChangeSetName']} can't be removed"
            aws.call(what, SERVICE, "delete_change_set", ChangeSetName=one["ChangeSetId"])


def execute_change_set(aws: Aws, change_set: ChangeSet) -> None:
    """Begin with the changes; an answer that was lost does not begin them twice."""
    what = f"the changes of {change_set.stack} can't be made"
    request = {"ChangeSetName": change_set.arn, "ClientRequestToken": change_set.token}
    try:
        aws.call(what, SERVICE, "execute_change_set", **request)
    except CloudRefused:
        if not any(token == change_set.token for token, _ in _list_events(aws, change_set.stack)):
            raise


def _list_events(aws: Aws, name: str) -> Iterator[tuple[str | None, StackEvent]]:
    """What has happened, the newest first, each with the token of whoever asked for it."""
    what = f"the events of {name} can't be read"
    more: dict[str, str] = {}
    while True:
        told = aws.call(what, SERVICE, "describe_stack_events", StackName=name, **more)
        for one in told["StackEvents"]:
            yield (
                one.get("ClientRequestToken"),
                StackEvent(
                    one["EventId"],
                    one["Timestamp"].isoformat(timespec="seconds"),
                    one["LogicalResourceId"],
                    one["ResourceType"],
                    one["ResourceStatus"],
                    one.get("ResourceStatusReason"),
                ),
            )
        if not told.get("NextToken"):
            return
        more = {"NextToken": told["NextToken"]}


def list_event_ids(aws: Aws, name: str) -> set[str]:
    """The events so far; none for a stack that is not there."""
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
    """Tell of each event as it comes, until the stack rests. `before` are those told already.

    Raises StackFailed, beginning with the first resource that failed, when it did not come through.
    """
    known, failed = set(seen), []
    while True:
        stack = stacks.describe_stack(aws, stack_id)
        for event in reversed([e for _, e in _list_events(aws, stack_id) if e.id not in known]):
            known.add(event.id)
            on_event(event)
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
"""Where a stack rests when what was wanted has come true."""


def _failure_error(stack: Stack, failed: Sequence[StackEvent]) -> StackFailed:
    resources = [event for event in failed if event.type != "AWS::CloudFormation::Stack"]
    if resources:
        first = resources[0]
        message = f"{first.resource} ({first.type}): {first.reason}"
    else:
        message = stack.reason or "CloudFormation gives no reason"
    fix = f"mend that and deploy again; `cloudft infra status {stack.name}` shows what stands."
    if stack.status.startswith("DELETE"):
        fix = "mend that and destroy again; what could be removed is removed."
    return StackFailed(f"{message} (the stack {stack.name} is now {stack.status})", fix=fix)


def set_termination_protection(aws: Aws, stack: Stack, on: bool) -> Stack:
    """Termination protection on or off; returns the stack as it is then."""
    what = f"the protection of {stack.name} can't be changed"
    request = {"StackName": stack.id, "EnableTerminationProtection": on}
    aws.call(what, SERVICE, "update_termination_protection", **request)
    return stacks.describe_stack(aws, stack.id)


def raise_if_unusable(aws: Aws, stack: Stack) -> None:
    """Raise StackFailed for a stack that CloudFormation changes no more; it says what helps."""
    if stack.status in ("CREATE_FAILED", "DELETE_FAILED", "ROLLBACK_FAILED"):
        fix = f"`cloudft infra destroy {stack.name}` removes what is left of it; then deploy again."
    elif stack.status == "UPDATE_ROLLBACK_FAILED":
        words = ("cloudformation", "continue-update-rollback", "--stack-name", stack.name)
        fix = f"`{aws_cli_command(aws, *words)}`, then deploy again."
    else:
        return
    raise StackFailed(f"the stack {stack.name} is {stack.status}: {stack.reason}", fix=fix)


def raise_if_in_progress(stack: Stack) -> None:
    """Raise AwsConflict for a stack that something is done to."""
    if is_in_progress(stack):
        fix = f"`cloudft infra status {stack.name}` shows when it rests."
        raise ResourceConflict(f"the stack {stack.name} is {stack.status}", fix=fix)
