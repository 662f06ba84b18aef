"""infra policy: print the least IAM policy of a job's submitter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.aws.client import Aws
    from cloudft.spec.load import LoadedJob


@command(
    "policy",
    epilog="\b\nExamples:\n  cloudft infra policy > policy.json\n"
    "  cloudft infra policy jobs/router.yaml --set bedrock.stack=team\n"
    "  cloudft infra policy --inference --set bedrock.inference_profile=us",
)
@job_file_argument
@click.option(
    "--inference",
    is_flag=True,
    help="Also allow what generate, evaluate and advise call: the tuned model, and the base model"
    " through its inference profile.",
)
@spec_options
@aws_options
@console_options
def policy_command(
    path: Path | None, flags: dict[str, str], inference: bool, console: Console
) -> int:
    """Print the least IAM policy that can check, submit and follow the job of a job file.

    It is derived from the API calls of a submit and their resources; nothing is staged or checked.
    Names that change with the job's content are patterns. With --inference the Regions behind an
    inference profile are read from the account; where that is refused, the model is allowed in any
    Region.
    """
    from cloudft.backends import make_backend
    from cloudft.backends.base import with_placeholder_data
    from cloudft.backends.bedrock import preflight
    from cloudft.backends.bedrock.backend import BedrockBackend
    from cloudft.backends.bedrock.caller_policy import caller_policy
    from cloudft.backends.bedrock.openai_api import caller_policy as openai_policy
    from cloudft.backends.bedrock.openai_api import preflight as openai_preflight
    from cloudft.cli.job_file import load_job_file
    from cloudft.cli.output import json_text
    from cloudft.errors import CheckFailed

    job = load_job_file(path, flags)
    backend = make_backend("bedrock", Home.from_environ()).for_job(job)
    job = backend.with_stack_defaults(job)
    is_bedrock = isinstance(backend, BedrockBackend)
    findings = (preflight if is_bedrock else openai_preflight).check_offline(job)
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, errors)
    if not isinstance(backend, BedrockBackend):  # that of Bedrock's OpenAI-compatible API
        document = openai_policy.caller_policy(job, with_inference=inference)
        console.print_result(document, json_text(document))
        return 0
    models = _read_profile_models(job, backend.aws, console) if inference else {}
    document = caller_policy(
        with_placeholder_data(job), with_inference=inference, profile_models=models
    )
    console.print_result(document, json_text(document))
    return 0


def _read_profile_models(job: LoadedJob, aws: Aws, console: Console) -> dict[str, tuple[str, ...]]:
    """Return the models behind the base model's profile; none, with a note, if that is refused."""
    from cloudft.backends.bedrock.inference_profiles import read_profile_models
    from cloudft.backends.bedrock.required_permissions import base_inference_id
    from cloudft.catalogue import parse_profile
    from cloudft.errors import CloudRefused, CloudUnreachable

    name = base_inference_id(job)
    if parse_profile(name) is None:
        return {}
    try:
        return {name: read_profile_models(aws, name)}
    except (CloudRefused, CloudUnreachable) as error:
        console.note(f"{error.message}; the policy allows its model in any Region")
        return {}
