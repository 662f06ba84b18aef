"""Which stacks are cloudft's: others are neither changed nor removed, whatever their name."""

from __future__ import annotations

from cloudft.aws import stack as stacks
from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import CloudRefused, ResourceNotFound, UsageError

CHANGE_SET_PREFIX = "cloudft-"
"""How the names of cloudft's change sets begin."""
OWNER_TAG = {"Key": "cloudft:infra", "Value": "base"}
"""The mark that every deploy gives a stack; all releases have."""


def is_owned(aws: Aws, stack: Stack) -> bool:
    """Return whether a stack carries cloudft's mark.

    One that waits for its first change set holds nothing, and bears its tags only once that is
    executed: it is foreign when a change set that another tool has made waits for it. Raises
    AwsRefused and AwsUnreachable where its change sets can't be listed.
    """
    if OWNER_TAG["Key"] in stack.tags:
        return True
    if stack.status != "REVIEW_IN_PROGRESS":
        return False
    more: dict[str, str] = {}
    while True:
        what = f"the change sets of {stack.name} can't be listed"
        page = aws.call(what, "cloudformation", "list_change_sets", StackName=stack.id, **more)
        if any(
            not one["ChangeSetName"].startswith(CHANGE_SET_PREFIX)
            for one in page.get("Summaries", ())
        ):
            return False
        if not page.get("NextToken"):
            return True
        more = {"NextToken": page["NextToken"]}


def find_owned_stack(aws: Aws, name: str) -> Stack | None:
    """Return the stack of that name or ARN, or None; raise UsageError for one that is not ours.

    Raises AwsRefused and AwsUnreachable.
    """
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound:
        return None
    if not is_owned(aws, stack):
        raise foreign_stack_error(aws, stack)
    return stack


def foreign_stack_error(aws: Aws, stack: Stack) -> UsageError:
    """Return the error for a stack without cloudft's mark, with what gives it the mark."""
    words = ["cloudformation", "update-stack", "--stack-name", stack.name]
    words += ["--use-previous-template", "--capabilities", "CAPABILITY_IAM"]
    words += ["--tags", f"Key={OWNER_TAG['Key']},Value={OWNER_TAG['Value']}"]
    kept = [f"ParameterKey={key},UsePreviousValue=true" for key in sorted(stack.parameters)]
    words += ["--parameters", *kept] if kept else []
    return UsageError(
        f"the stack {stack.name} is not cloudft's: it has no tag {OWNER_TAG['Key']} ({stack.id})",
        fix="take another name. Where other tools made it from a template of cloudft, mark it:"
        f" `{aws_cli_command(aws, *words)}`.",
    )


def find_deleted_stack(aws: Aws, name: str) -> Stack | None:
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
            stack = stacks.describe_stack(aws, one["StackId"])
        except CloudRefused as error:
            if not isinstance(error, ResourceNotFound):
                raise
            continue
        if is_owned(aws, stack):
            return stack
    return None
