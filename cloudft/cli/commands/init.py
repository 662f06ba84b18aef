"""init, show, schema: the job file itself."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.commands.submit import load_job_file
from cloudft.cli.options import (
    Console,
    complete_job,
    console_options,
    job_file_argument,
    spec_options,
)
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.spec.load import LoadedJob


@click.command(
    "init",
    epilog="\b\nExamples:\n  cloudft init my-job\n"
    "  cloudft init --type CONTINUED_PRE_TRAINING handbook\n"
    "  cloudft init --from-job ticket-router again",
)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option(
    "--type",
    "customization_type",
    type=click.Choice(["FINE_TUNING", "CONTINUED_PRE_TRAINING"]),
    default="FINE_TUNING",
    show_default=True,
    help="What the starter job does.",
)
@click.option(
    "--from-job", metavar="JOB", shell_complete=complete_job, help="Write the file of that job."
)
@console_options
def init_command(
    folder: Path, customization_type: str, from_job: str | None, console: Console
) -> int:
    """Write a starter job file with sample data into DIR. It runs as it is.

    Existing files are never overwritten.
    """
    from cloudft import starter

    if from_job is not None:
        from cloudft.cli.jobs import open_job

        written = starter.write_job_file(open_job(from_job)[0].spec, folder)
    else:
        written = starter.write_starter(customization_type, folder)
    console.note(f"next: cd {folder} && cloudft check && cloudft submit --wait")
    console.print_result({"written": written}, "\n".join(map(str, written)))
    return 0


@click.command(
    "show",
    epilog="\b\nExamples:\n  cloudft show --resolved\n  CLOUDFT_SEED=3 cloudft show --resolved",
)
@job_file_argument
@click.option("--resolved", is_flag=True, help="Every value, and where it comes from.")
@spec_options
@console_options
def show_command(path: Path | None, resolved: bool, flags: dict[str, str], console: Console) -> int:
    """Print a job file as cloudft reads it, flags and environment laid over it."""
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
    """The job with its stacks' values; a warning where they can't be had."""
    from cloudft.backends import make_backend
    from cloudft.cli.output import print_findings
    from cloudft.errors import CheckFailed, CloudRefused, CloudUnreachable
    from cloudft.types import Finding

    told: dict[str, Finding] = {}
    for name in ("bedrock", "sagemaker"):
        try:
            job = make_backend(name, Home.from_environ()).for_job(job).with_stack_defaults(job)
        except (CloudRefused, CloudUnreachable, CheckFailed) as error:
            if name == "bedrock" or job.spec.sagemaker.stack:  # else it was bedrock's to name
                place = (error.file, error.line, error.field)
                own = [Finding("warning", error.code, error.message, error.fix or "", *place)]
                for found in error.findings if isinstance(error, CheckFailed) else own:
                    told.setdefault(found.message, dataclasses.replace(found, severity="warning"))
    print_findings(list(told.values()))
    return job


def _value_text(value: Any) -> str:
    from cloudft.cli.output import json_line

    return value if isinstance(value, str) else json_line(value)


@click.command("schema", epilog="\b\nExample:\n  cloudft schema > cloudft.schema.json")
@console_options
def schema_command(console: Console) -> int:
    """Print the JSON Schema of the job file; editors complete and check with it."""
    from cloudft.cli.output import json_text
    from cloudft.spec.resolve import build_job_schema

    schema = build_job_schema()
    console.print_result(schema, json_text(schema))
    return 0
