"""Explain why a resource can't be removed yet, and what has to be removed first."""

from __future__ import annotations

from collections.abc import Iterable

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.backends.bedrock import states
from cloudft.backends.resources import CloudResource
from cloudft.errors import CloudRefused, CloudUnreachable, ResourceConflict

DELETE_COMMANDS = {
    "deployment": ("delete-custom-model-deployment", "--custom-model-deployment-identifier"),
    "provisioned-throughput": ("delete-provisioned-model-throughput", "--provisioned-model-id"),
}
"""Commands of `aws bedrock` by kind, for resources that cloudft did not create."""


def explain_conflict(
    aws: Aws, resource: CloudResource, servings: Iterable[CloudResource], error: ResourceConflict
) -> ResourceConflict:
    """Return the conflict of a removal with the fix for this kind of resource.

    `servings` are the deployments and throughputs of the account. Where they can't be read, the fix
    is a general one.
    """
    fix = "wait until what uses it has ended, then remove it again."
    try:
        if resource.kind == "custom-model":
            fix = _serving_fix(aws, resource, servings) or fix
        elif resource.kind == "provisioned-throughput":
            fix = _throughput_fix(aws, resource) or fix
    except (CloudRefused, CloudUnreachable):
        pass
    return ResourceConflict(error.message, fix=fix)


def _serving_fix(aws: Aws, model: CloudResource, servings: Iterable[CloudResource]) -> str | None:
    """Return how to remove what serves the model: cloudft's by job, others by their ARN."""
    users = [serving for serving in servings if serving.model == model.id]
    commands = [
        f"`cloudft undeploy {user.job}`"
        if user.job
        else f"`{aws_cli_command(aws, 'bedrock', *DELETE_COMMANDS[user.kind], user.id)}`"
        for user in users
    ]
    if not commands:
        return None
    names = ", ".join(f"{user.kind} {user.name}" for user in users)
    return f"{names} uses it: {' and '.join(dict.fromkeys(commands))} first."


def _throughput_fix(aws: Aws, throughput: CloudResource) -> str | None:
    """Return when the throughput can be removed: after its update, or at its commitment's end."""
    response = aws.call(
        f"can't read {throughput.name}",
        "bedrock",
        "get_provisioned_model_throughput",
        provisionedModelId=throughput.id,
    )
    if response["status"] == "Updating":
        return "it is being updated: remove it when `cloudft ps` shows it as ready."
    ends = response.get("commitmentExpirationTime")
    if ends is None:
        return None
    term = response["commitmentDuration"]
    return f"its commitment ({term}) ends at {states.iso_format(ends)}: remove it after that."
