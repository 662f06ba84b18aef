"""infra policy: print the least IAM policy of a job's submitter."""

from __future__ import annotations

from pathlib import Path

from cloudft.cli.command import command
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.storage.home import Home


@command(
    "policy",
    epilog="\b\nExamples:\n  cloudft infra policy > policy.json\n"
    "  cloudft infra policy jobs/router.yaml --set bedrock.stack=team",
)
@job_file_argument
@spec_options
@aws_options
@console_options
def policy_command(path: Path | None, flags: dict[str, str], console: Console) -> int:
    """Print the least IAM policy that can check, submit and follow the job of a job file.

    It is derived from the API calls of a submit and their resources; nothing is staged or checked.
    Names that change with the job's content are patterns.
    """
    from cloudft.backends import make_backend
    from cloudft.backends.base import with_placeholder_data
    from cloudft.backends.bedrock import preflight
    from cloudft.backends.bedrock.caller_policy import caller_policy
    from cloudft.cli.job_file import load_job_file
    from cloudft.cli.output import json_text
    from cloudft.errors import CheckFailed

    job = load_job_file(path, flags)
    job = make_backend("bedrock", Home.from_environ()).for_job(job).with_stack_defaults(job)
    errors = [finding for finding in preflight.check_offline(job) if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, errors)
    document = caller_policy(with_placeholder_data(job))
    console.print_result(document, json_text(document))
    return 0
