"""Recognize cloudft's stacks, so that other stacks are never changed or deleted."""

from __future__ import annotations

from cloudft.aws import stack as stacks
from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import ResourceNotFound, UsageError

SERVICE = "cloudformation"
CHANGE_SET_PREFIX = "cloudft-"
"""How the names of cloudft's change sets begin."""
OWNER_TAG = {"Key": "cloudft:infra", "Value": "base"}
"""The tag that every deploy sets on a stack, in all releases."""


def is_owned(aws: Aws, stack: Stack) -> bool:
    """Return whether a stack has cloudft's tag.

    A stack in REVIEW_IN_PROGRESS is empty and gets its tags only when its change set is executed:
    it is foreign when it has a change set of another tool. Raises CloudRefused and CloudUnreachable
    when its change sets can't be listed.
    """
    if OWNER_TAG["Key"] in stack.tags:
        return True
    if stack.status != "REVIEW_IN_PROGRESS":
        return False
    failure = f"can't list the change sets of {stack.name}"
    change_sets = aws.paginate(
        failure, SERVICE, "list_change_sets", "Summaries", StackName=stack.id
    )
    return all(one["ChangeSetName"].startswith(CHANGE_SET_PREFIX) for one in change_sets)


def find_owned_stack(aws: Aws, name: str) -> Stack | None:
    """Return the stack with that name or ARN, or None when there is none.

    Raises UsageError for a stack that is not cloudft's, CloudRefused, CloudUnreachable.
    """
    try:
        stack = stacks.describe_stack(aws, name)
    except ResourceNotFound:
        return None
    if not is_owned(aws, stack):
        raise foreign_stack_error(aws, stack)
    return stack


def foreign_stack_error(aws: Aws, stack: Stack) -> UsageError:
    """Return the error for a stack without cloudft's tag, with the command that adds the tag."""
    words = ["cloudformation", "update-stack", "--stack-name", stack.name]
    words += ["--use-previous-template", "--capabilities", "CAPABILITY_IAM"]
    words += ["--tags", f"Key={OWNER_TAG['Key']},Value={OWNER_TAG['Value']}"]
    kept = [f"ParameterKey={key},UsePreviousValue=true" for key in sorted(stack.parameters)]
    words += ["--parameters", *kept] if kept else []
    return UsageError(
        f"the stack {stack.name} is not cloudft's: it has no tag {OWNER_TAG['Key']} ({stack.id})",
        fix="use another name. If another tool deployed a template of cloudft, add the tag:"
        f" `{aws_cli_command(aws, *words)}`.",
    )


def find_deleted_stack(aws: Aws, name: str) -> Stack | None:
    """Return the newest deleted stack with that name that was cloudft's, or None.

    CloudFormation keeps deleted stacks, with their tags, for 90 days. Raises CloudRefused and
    CloudUnreachable.
    """
    summaries = aws.paginate(
        "can't list the deleted stacks",
        SERVICE,
        "list_stacks",
        "StackSummaries",
        StackStatusFilter=["DELETE_COMPLETE"],
    )
    deleted = [one for one in summaries if one["StackName"] == name]
    for one in sorted(deleted, key=lambda one: one["DeletionTime"], reverse=True):
        try:
            stack = stacks.describe_stack(aws, one["StackId"])
        except ResourceNotFound:  # older than 90 days
            continue
        if is_owned(aws, stack):
            return stack
    return None
