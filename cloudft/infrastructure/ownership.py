"""Which stacks are cloudft's: others are neither changed nor removed, whatever their name."""

from __future__ import annotations

from cloudft.aws import stack as stacks
from cloudft.aws.client import Aws
from cloudft.aws.commands import command
from cloudft.aws.stack import Stack
from cloudft.errors import AwsNotFound, AwsRefused, UsageError

PREFIX = "cloudft-"
"""How the names of cloudft's change sets begin."""
TAG = {"Key": "cloudft:infra", "Value": "base"}
"""The mark that every deploy gives a stack; all releases have."""


def is_ours(aws: Aws, stack: Stack) -> bool:
    """Return whether a stack carries cloudft's mark.

    One that waits for its first change set holds nothing, and bears its tags only once that is
    executed: it is foreign when a change set that another tool has made waits for it. Raises
    AwsRefused and AwsUnreachable where its change sets can't be listed.
    """
    if TAG["Key"] in stack.tags:
        return True
    if stack.status != "REVIEW_IN_PROGRESS":
        return False
    more: dict[str, str] = {}
    while True:
        what = f"the change sets of {stack.name} can't be listed"
        page = aws.call(what, "cloudformation", "list_change_sets", StackName=stack.id, **more)
        if any(not one["ChangeSetName"].startswith(PREFIX) for one in page.get("Summaries", ())):
            return False
        if not page.get("NextToken"):
            return True
        more = {"NextToken": page["NextToken"]}


def refuse_foreign(aws: Aws, name: str) -> Stack | None:
    """Return the stack of that name or ARN, or None; raise UsageError for one that is not ours.

    Raises AwsRefused and AwsUnreachable.
    """
    try:
        stack = stacks.read(aws, name)
    except AwsNotFound:
        return None
    if not is_ours(aws, stack):
        raise foreign(aws, stack)
    return stack


def foreign(aws: Aws, stack: Stack) -> UsageError:
    """Return the error for a stack without cloudft's mark, with what gives it the mark."""
    words = ["cloudformation", "update-stack", "--stack-name", stack.name]
    words += ["--use-previous-template", "--capabilities", "CAPABILITY_IAM"]
    words += ["--tags", f"Key={TAG['Key']},Value={TAG['Value']}"]
    kept = [f"ParameterKey={key},UsePreviousValue=true" for key in sorted(stack.parameters)]
    words += ["--parameters", *kept] if kept else []
    return UsageError(
        f"the stack {stack.name} is not cloudft's: it has no tag {TAG['Key']} ({stack.id})",
        fix="take another name. Where other tools made it from a template of cloudft, mark it:"
        f" `{command(aws, *words)}`.",
    )


def deleted(aws: Aws, name: str) -> Stack | None:
    """Return the newest deleted stack of that name that was cloudft's; None where there is none.

    CloudFormation remembers deleted stacks, with their tags, for 90 days. Raises AwsRefused and
    AwsUnreachable.
    """
    more: dict[str, object] = {"StackStatusFilter": ["DELETE_COMPLETE"]}
    found = []
    while True:
        what = "the deleted stacks can't be listed"
        page = aws.call(what, "cloudformation", "list_stacks", **more)
        found += [one for one in page["StackSummaries"] if one["StackName"] == name]
        if not page.get("NextToken"):
            break
        more["NextToken"] = page["NextToken"]
    for one in sorted(found, key=lambda one: one["DeletionTime"], reverse=True):
        try:
            stack = stacks.read(aws, one["StackId"])
        except AwsRefused as error:
            if not isinstance(error, AwsNotFound):
                raise
            continue
        if is_ours(aws, stack):
            return stack
    return None
