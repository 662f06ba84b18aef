"""show: print a job file as cloudft reads it."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.job_file import load_job_file
from cloudft.cli.options import (
    Console,
    aws_options,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.spec.load import LoadedJob


@command(
    "show",
    epilog="\b\nExamples:\n  cloudft show --resolved\n  CLOUDFT_SEED=3 cloudft show --resolved",
)
@job_file_argument
@click.option("--resolved", is_flag=True, help="Show every value, and where it comes from.")
@spec_options
@aws_options
@console_options
def show_command(path: Path | None, resolved: bool, flags: dict[str, str], console: Console) -> int:
    """Print a job file as cloudft reads it, with flags and environment variables applied."""
    from cloudft.cli.output import format_table, print_findings
    from cloudft.spec.resolve import resolve_values as resolve

    job = load_job_file(path, flags)
    if resolved:
        job = _with_stack_defaults(job)
    print_findings(job.findings)
    values = [v for v in resolve(job) if resolved or v.origin.kind not in ("default", "catalogue")]
    rows = [(v.field, _value_text(v.value), v.origin.kind, v.origin.where) for v in values]
    console.print_result(
        [
            {"field": v.field, "value": v.value, "origin": v.origin.kind, "where": v.origin.where}
            for v in values
        ],
        format_table(("FIELD", "VALUE", "ORIGIN", "WHERE"), rows),
    )
    return 0


def _with_stack_defaults(job: LoadedJob) -> LoadedJob:
    """Return the job with its stacks' values. Print a warning if they can't be read."""
    from cloudft.backends import make_backend
    from cloudft.cli.output import print_findings
    from cloudft.errors import CheckFailed, CloudRefused, CloudUnreachable
    from cloudft.types import Finding

    warnings: dict[str, Finding] = {}
    for name in ("bedrock", "sagemaker"):
        try:
            job = make_backend(name, Home.from_environ()).for_job(job).with_stack_defaults(job)
        except (CloudRefused, CloudUnreachable, CheckFailed) as error:
            if (
                name == "bedrock" or job.spec.sagemaker.stack
            ):  # else the error of bedrock is the same
                place = (error.file, error.line, error.field)
                own = [Finding("warning", error.code, error.message, error.fix or "", *place)]
                for found in error.findings if isinstance(error, CheckFailed) else own:
                    warnings.setdefault(
                        found.message, dataclasses.replace(found, severity="warning")
                    )
    print_findings(list(warnings.values()))
    return job


def _value_text(value: Any) -> str:
    from cloudft.cli.output import json_line

    return value if isinstance(value, str) else json_line(value)
