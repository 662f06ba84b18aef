"""The end of a stack: refused while it holds something, and gone on with after a break.

The stack goes first, so that nothing new begins; then the buckets and the key that it leaves. A run
that broke off between the two finds them by the stack that is deleted: CloudFormation remembers its
resources for 90 days.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import AwsNotFound, JobStateConflict
from cloudft.infrastructure import changes, remains
from cloudft.infrastructure.remains import Holdings, Kept


@dataclass(frozen=True)
class End:
    """What the end of a stack would come to. `stack` is None when only leftovers are there."""

    name: str
    id: str
    stack: Stack | None
    left: Sequence[Kept]
    holdings: Holdings
    keep_data: bool


def plan(aws: Aws, name: str, *, delete_data: bool, keep_data: bool) -> End:
    """What would be removed. Raises JobStateConflict for what must not be, and says what helps.

    Raises AwsNotFound where there is no stack, and nothing that an earlier one has left.
    """
    stack = _present(aws, name)
    if stack is not None:
        changes.refuse_under_way(stack)
        if stack.protected:
            fix = f"`cloudft infra deploy {name} --no-protect` takes it away."
            raise JobStateConflict(f"the stack {name} is protected against its end", fix=fix)
        if changes.find(aws, f"{name}-jobs") is not None:
            fix = f"`cloudft infra destroy {name}-jobs` first."
            raise JobStateConflict(f"the stack {name}-jobs works with {name}", fix=fix)
    identifier = stack.id if stack else _deleted(aws, name)
    left = remains.kept(aws, identifier) if identifier else []
    if identifier is None or (stack is None and not left):
        raise stacks.no_such_stack(name, aws)
    found = remains.holdings(aws, stack, left)
    _refuse(name, found, delete_data, keep_data)
    return End(name, identifier, stack, left, found, keep_data)


def _present(aws: Aws, name: str) -> Stack | None:
    """The stack; one that only waits for a first change set counts, too."""
    try:
        return stacks.read(aws, name)
    except AwsNotFound:
        return None


def _deleted(aws: Aws, name: str) -> str | None:
    """The ARN of the newest deleted stack of that name."""
    more: dict[str, Any] = {"StackStatusFilter": ["DELETE_COMPLETE"]}
    found: list[Mapping[str, Any]] = []
    while True:
        what = "the deleted stacks can't be listed"
        page = aws.call(what, changes.SERVICE, "list_stacks", **more)
        found += [one for one in page["StackSummaries"] if one["StackName"] == name]
        if not page.get("NextToken"):
            break
        more["NextToken"] = page["NextToken"]
    return str(max(found, key=lambda one: one["DeletionTime"])["StackId"]) if found else None


def _refuse(name: str, found: Holdings, delete_data: bool, keep_data: bool) -> None:
    if found.jobs:
        message = f"jobs run with the roles of {name}: {', '.join(found.jobs[:5])}"
        raise JobStateConflict(message, fix="wait for their end, or `cloudft stop JOB` each.")
    if keep_data:
        return
    if found.models:
        message = f"models need the key of {name}: {', '.join(found.models[:5])}"
        fix = "remove them (`cloudft gc --kind custom-model`), or keep the key with --keep-data."
        raise JobStateConflict(message, fix=fix)
    if found.objects and not delete_data:
        told = ", ".join(f"{bucket} ({many(count)})" for bucket, count in found.objects.items())
        fix = "--delete-data removes them with every version, --keep-data leaves them."
        raise JobStateConflict(f"the buckets of {name} hold objects: {told}", fix=fix)


def many(count: int) -> str:
    """How many versions a bucket holds, as far as they were counted."""
    return f"{count} or more" if count >= remains.BATCH else str(count)


def carry_out(
    aws: Aws,
    end: End,
    tell: Callable[[changes.Event], None],
    progress: Callable[[int], None],
    poll_s: float = 3.0,
    sleep: changes.Sleep = time.sleep,
) -> dict[str, str]:
    """Do it; returns what became of each bucket and key. Raises StackFailed."""
    if end.stack is not None:
        before = changes.seen(aws, end.id)
        token = f"end-{end.id.rpartition('/')[2]}"
        what = f"the stack {end.name} can't be removed"
        request = {"StackName": end.id, "ClientRequestToken": token}
        aws.call(what, changes.SERVICE, "delete_stack", **request)
        changes.follow(aws, end.id, before, tell, poll_s, sleep)
    if end.keep_data:
        return {one.physical: "stays" for one in end.left}
    owner = end.id.split(":")[4]
    last = {"LogBucket": 1, "Key": 2}  # logs come in, and are encrypted, until the others are gone
    in_order = sorted(end.left, key=lambda one: last.get(one.logical, 0))
    return {one.physical: remains.remove(aws, one, owner, progress) for one in in_order}
