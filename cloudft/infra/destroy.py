"""Delete a stack; refuse while it is in use, and resume an interrupted deletion.

The stack is deleted first, so that nothing new starts; then the buckets and the key that it
retains. A run that was interrupted between the two finds them through the deleted stack, because
CloudFormation keeps a deleted stack's resources for 90 days.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.backends.aws_base.grader_package import STACK_SUFFIX
from cloudft.errors import JobStateConflict
from cloudft.infra import change_sets, grader_stack, leftovers, ownership
from cloudft.infra.leftovers import RetainedResource, StackContents

SHOWN_NAMES = 5
DELETION_ORDER = {"LogBucket": 1, "Key": 2}
"""Logs arrive, and are encrypted, until the other buckets are deleted: these two come last."""


@dataclass(frozen=True)
class DestroyPlan:
    """What a deletion would remove. `stack` is None when only retained resources are left."""

    name: str
    id: str
    stack: Stack | None
    retained: Sequence[RetainedResource]
    contents: StackContents
    keep_data: bool


def plan_destroy(aws: Aws, name: str, *, delete_data: bool, keep_data: bool) -> DestroyPlan:
    """Return what would be deleted.

    Raises JobStateConflict, with a remedy, when it must not be deleted; ResourceNotFound when there
    is neither a stack nor anything that an earlier one retained; UsageError for a stack that is not
    cloudft's.
    """
    stack = ownership.find_owned_stack(aws, name)
    if stack is not None:
        _raise_if_not_deletable(aws, stack, name)
    subject = stack or ownership.find_deleted_stack(aws, name)
    retained = leftovers.list_retained_resources(aws, subject.id) if subject else []
    if subject is None or (stack is None and not retained):
        raise stacks.stack_not_found(name, aws)
    contents = leftovers.find_stack_contents(aws, stack, retained)
    _raise_if_in_use(name, contents, delete_data, keep_data)
    return DestroyPlan(name, subject.id, stack, retained, contents, keep_data)


def _raise_if_not_deletable(aws: Aws, stack: Stack, name: str) -> None:
    change_sets.raise_if_in_progress(stack)
    if stack.termination_protection:
        raise JobStateConflict(
            f"termination protection is on for the stack {name}",
            fix=f"`cloudft infra deploy {name} --no-protect` turns it off.",
        )
    for other in (f"{name}-jobs", f"{name}{STACK_SUFFIX}"):
        if change_sets.find_stack(aws, other) is not None:
            raise JobStateConflict(
                f"the stack {other} uses {name}", fix=f"`cloudft infra destroy {other}` first."
            )
    grader_stack.raise_if_grading(aws, stack)


def _raise_if_in_use(
    name: str, contents: StackContents, delete_data: bool, keep_data: bool
) -> None:
    if contents.jobs:
        raise JobStateConflict(
            f"jobs are running with the roles of {name}: {', '.join(contents.jobs[:SHOWN_NAMES])}",
            fix="wait until they end, or stop each with `cloudft stop JOB`.",
        )
    if keep_data:
        return
    if contents.models:
        raise JobStateConflict(
            f"models need the key of {name}: {', '.join(contents.models[:SHOWN_NAMES])}",
            fix="delete them (`cloudft gc --kind custom-model --live`), or keep the key with"
            " --keep-data.",
        )
    if contents.objects and not delete_data:
        counts = [f"{bucket} ({format_count(n)})" for bucket, n in contents.objects.items()]
        raise JobStateConflict(
            f"the buckets of {name} hold objects: {', '.join(counts)}",
            fix="--delete-data deletes them with every version, --keep-data keeps them.",
        )


def format_count(count: int) -> str:
    """Return a number of object versions, which are counted up to a limit."""
    return f"{count} or more" if count >= leftovers.VERSIONS_PER_CALL else str(count)


def execute_destroy(
    aws: Aws,
    plan: DestroyPlan,
    on_event: Callable[[change_sets.StackEvent], None],
    progress: Callable[[int], None],
    poll_s: float = 3.0,
    sleep: change_sets.Sleep = time.sleep,
) -> dict[str, str]:
    """Delete the stack; return what happened to each bucket and key, by name.

    Raises StackFailed.
    """
    if plan.stack is not None:
        # First: after the stack nothing would name them. Its function has a copy.
        grader_stack.remove_packages(aws, plan.stack)
        seen = change_sets.list_event_ids(aws, plan.id)
        # A token of this run's own: one that an earlier deletion used would be ignored.
        request = {"StackName": plan.id, "ClientRequestToken": f"end-{secrets.token_hex(16)}"}
        failure = f"can't delete the stack {plan.name}"
        aws.call(failure, ownership.SERVICE, "delete_stack", **request)
        change_sets.follow_stack(aws, plan.id, seen, on_event, poll_s, sleep)
    if plan.keep_data:
        return {resource.physical_id: "stays" for resource in plan.retained}
    owner = plan.id.split(":")[4]  # the account, from the stack's ARN
    in_order = sorted(plan.retained, key=lambda r: DELETION_ORDER.get(r.logical_id, 0))
    return {r.physical_id: leftovers.remove_resource(aws, r, owner, progress) for r in in_order}
