"""The end of a stack: refused while it holds something, and gone on with after a break.

The stack goes first, so that nothing new begins; then the buckets and the key that it leaves. A run
that broke off between the two finds them by the stack that is deleted: CloudFormation remembers its
resources for 90 days.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import JobStateConflict
from cloudft.infra import change_sets, leftovers, ownership
from cloudft.infra.leftovers import RetainedResource, StackContents


@dataclass(frozen=True)
class DestroyPlan:
    """What the end of a stack would come to. `stack` is None when only leftovers are there."""

    name: str
    id: str
    stack: Stack | None
    retained: Sequence[RetainedResource]
    contents: StackContents
    keep_data: bool


def plan_destroy(aws: Aws, name: str, *, delete_data: bool, keep_data: bool) -> DestroyPlan:
    """What would be removed. Raises JobStateConflict for what must not be, and says what helps.

    Raises AwsNotFound where there is no stack, and nothing that an earlier one has left; UsageError
    for a stack that is not cloudft's.
    """
    stack = ownership.find_owned_stack(aws, name)
    if stack is not None:
        change_sets.raise_if_in_progress(stack)
        if stack.termination_protection:
            fix = f"`cloudft infra deploy {name} --no-protect` takes it away."
            raise JobStateConflict(f"the stack {name} is protected against its end", fix=fix)
        if change_sets.find_stack(aws, f"{name}-jobs") is not None:
            fix = f"`cloudft infra destroy {name}-jobs` first."
            raise JobStateConflict(f"the stack {name}-jobs works with {name}", fix=fix)
    ended = stack or ownership.find_deleted_stack(aws, name)
    left = leftovers.list_retained_resources(aws, ended.id) if ended else []
    if ended is None or (stack is None and not left):
        raise stacks.stack_not_found(name, aws)
    found = leftovers.find_stack_contents(aws, stack, left)
    _raise_if_in_use(name, found, delete_data, keep_data)
    return DestroyPlan(name, ended.id, stack, left, found, keep_data)


def _raise_if_in_use(name: str, found: StackContents, delete_data: bool, keep_data: bool) -> None:
    if found.jobs:
        message = f"jobs run with the roles of {name}: {', '.join(found.jobs[:5])}"
        raise JobStateConflict(message, fix="wait for their end, or `cloudft stop JOB` each.")
    if keep_data:
        return
    if found.models:
        message = f"models need the key of {name}: {', '.join(found.models[:5])}"
        fix = "remove them (`cloudft gc --kind custom-model --live`), or --keep-data keeps the key."
        raise JobStateConflict(message, fix=fix)
    if found.objects and not delete_data:
        told = ", ".join(
            f"{bucket} ({format_count(count)})" for bucket, count in found.objects.items()
        )
        fix = "--delete-data removes them with every version, --keep-data leaves them."
        raise JobStateConflict(f"the buckets of {name} hold objects: {told}", fix=fix)


def format_count(count: int) -> str:
    """How many versions a bucket holds, as far as they were counted."""
    return f"{count} or more" if count >= leftovers.VERSIONS_PER_CALL else str(count)


def execute_destroy(
    aws: Aws,
    plan: DestroyPlan,
    on_event: Callable[[change_sets.StackEvent], None],
    progress: Callable[[int], None],
    poll_s: float = 3.0,
    sleep: change_sets.Sleep = time.sleep,
) -> dict[str, str]:
    """Do it; returns what became of each bucket and key. Raises StackFailed."""
    if plan.stack is not None:
        before = change_sets.list_event_ids(aws, plan.id)
        token = f"end-{secrets.token_hex(16)}"
        what = f"the stack {plan.name} can't be removed"
        request = {"StackName": plan.id, "ClientRequestToken": token}
        aws.call(what, change_sets.SERVICE, "delete_stack", **request)
        change_sets.follow_stack(aws, plan.id, before, on_event, poll_s, sleep)
    if plan.keep_data:
        return {one.physical_id: "stays" for one in plan.retained}
    owner = plan.id.split(":")[4]
    last = {"LogBucket": 1, "Key": 2}  # logs come in, and are encrypted, until the others are gone
    in_order = sorted(plan.retained, key=lambda one: last.get(one.logical_id, 0))
    return {
        one.physical_id: leftovers.remove_resource(aws, one, owner, progress) for one in in_order
    }
