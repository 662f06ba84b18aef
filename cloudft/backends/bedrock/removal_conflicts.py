"""Why something can't be removed yet, and what has to go first."""

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
"""Commands of `aws bedrock`, for what cloudft did not make."""


def explain_conflict(
    aws: Aws, resource: CloudResource, servings: Iterable[CloudResource], error: ResourceConflict
) -> ResourceConflict:
    """Return the refusal of a removal with the remedy for this kind of thing.

    `servings` are what serves models in the account. What can't be read leaves a general remedy.
    """
    fix = "wait until what uses it has ended, then remove it again."
    try:
        if resource.kind == "custom-model":
            fix = _serving_fix(aws, resource, servings) or fix
        elif resource.kind == "provisioned-throughput":
            fix = _commitment_fix(aws, resource) or fix
    except (CloudRefused, CloudUnreachable):
        pass
    return ResourceConflict(error.message, fix=fix)


def _serving_fix(aws: Aws, model: CloudResource, servings: Iterable[CloudResource]) -> str | None:
    """Return how to remove what serves the model: cloudft's by job, another's by its ARN."""
    using = [one for one in servings if one.model == model.id]
    commands = [
        f"`cloudft undeploy {one.job}`"
        if one.job
        else f"`{aws_cli_command(aws, 'bedrock', *DELETE_COMMANDS[one.kind], one.id)}`"
        for one in using
    ]
    if not commands:
        return None
    names = ", ".join(f"{one.kind} {one.name}" for one in using)
    return f"{names} uses it: {' and '.join(dict.fromkeys(commands))} first."


def _commitment_fix(aws: Aws, throughput: CloudResource) -> str | None:
    what, operation = f"{throughput.name} can't be read", "get_provisioned_model_throughput"
    answer = aws.call(what, "bedrock", operation, provisionedModelId=throughput.id)
    ends = answer.get("commitmentExpirationTime")
    if ends is None:
        return None
    term = answer["commitmentDuration"]
    return f"its commitment ({term}) ends at {states.iso_format(ends)}: remove it after that."
