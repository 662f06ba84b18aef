"""init: write a job file, for your own data or with sample data."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, complete_job, console_options

if TYPE_CHECKING:
    from cloudft.starter.data_job import DataJob

NOT_FROM_DATA = {
    "DISTILLATION": "prompts with a teacher",
    "PREFERENCE_OPTIMIZATION": "pairs of answers",
    "REINFORCEMENT_FINE_TUNING": "prompts with a grader",
}
"""Types whose job file needs more than the data says, and what they train on."""


@command(
    "init",
    epilog="\b\nExamples:\n  cloudft init my-job\n"
    "  cloudft init --data tickets.csv my-job\n"
    "  cloudft init --data faq.csv --column prompt=frage --column completion=antwort my-job\n"
    "  cloudft init --type CONTINUED_PRE_TRAINING handbook\n"
    "  cloudft init --type REINFORCEMENT_FINE_TUNING word-count\n"
    "  cloudft init --type PREFERENCE_OPTIMIZATION tone\n"
    "  cloudft init --from-job ticket-router copy",
)
@click.argument("folder", metavar="[DIR]", default=".", type=click.Path(path_type=Path))
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="Write a job for this file or folder: JSONL, CSV, Parquet or text.",
)
@click.option(
    "--type",
    "customization_type",
    type=click.Choice(
        [
            "FINE_TUNING",
            "CONTINUED_PRE_TRAINING",
            "DISTILLATION",
            "REINFORCEMENT_FINE_TUNING",
            "PREFERENCE_OPTIMIZATION",
        ]
    ),
    help="What the job does; default: what fits the data, or FINE_TUNING.",
)
@columns_option
@click.option(
    "--from-job",
    metavar="JOB",
    shell_complete=complete_job,
    help="Write the job file of an earlier job.",
)
@console_options
def init_command(
    folder: Path,
    data: Path | None,
    customization_type: str | None,
    columns: dict[str, str],
    from_job: str | None,
    console: Console,
) -> int:
    """Write a job file into DIR that runs on this machine as it is.

    With --data it is a job for your own data, which stays where it is: the first records show the
    format, and each choice comes with its reason. Without, it is a sample job with sample data.
    Existing files are never overwritten.
    """
    from cloudft import starter

    if data is not None and from_job is not None:
        raise click.UsageError("--data and --from-job exclude each other")
    if columns and data is None:
        raise click.UsageError("--column needs --data")
    if data is not None and customization_type in NOT_FROM_DATA:
        raise click.UsageError(
            f"--data writes no job of {NOT_FROM_DATA[customization_type]}; take the sample's job"
            f" file (`cloudft init --type {customization_type} DIR`) and name your file in"
            " data.train"
        )
    reasons: list[dict[str, object]] = []
    next_steps = "cloudft check && cloudft submit --wait"
    if data is not None:
        from cloudft.starter.data_job import write_data_job

        job = _plan_job(data, folder, customization_type, columns, console)
        reasons = [{"field": c.field, "value": c.value, "reason": c.reason} for c in job.choices]
        written = write_data_job(job, folder)
        if job.problem is not None:
            next_steps = _repair_steps(job.problem.fix or "")
    elif from_job is not None:
        from cloudft.cli.jobs import open_job

        written = starter.write_job_file(open_job(from_job)[0].spec, folder)
    else:
        written = starter.write_starter(customization_type or "FINE_TUNING", folder)
    enter = "" if folder == Path() else f"cd {folder} && "
    console.note(f"next: {enter}{next_steps}")
    value = {"written": written} | ({"choices": reasons} if data is not None else {})
    console.print_result(value, "\n".join(map(str, written)))
    return 0


def _repair_steps(fix: str) -> str:
    """Return the commands that repair data and write the job for the copy.

    `check` fails for the original, which is named in the job file: they are not joined by &&.
    """
    ways = re.findall(r" --turns \w+", fix)
    commands = [f"cloudft check --fix repaired{way}" for way in ways or [""]]
    steps = f"{commands[0]}; cloudft init --data repaired new"
    return steps if len(commands) == 1 else f"{steps} (or with{' or with'.join(ways[1:])})"


def _plan_job(
    data: Path,
    folder: Path,
    customization_type: str | None,
    columns: dict[str, str],
    console: Console,
) -> DataJob:
    """Choose the fields of the job, and print each with its reason."""
    from cloudft.cli.progress import record_counter
    from cloudft.starter.data_job import format_value, plan_data_job

    with record_counter(console) as progress:
        job = plan_data_job(
            data, folder, customization_type=customization_type, columns=columns, progress=progress
        )
    for choice in job.choices:
        reason = f"  ({choice.reason})" if choice.reason else ""
        console.note(f"{choice.field}: {format_value(choice.value)}{reason}")
    if job.problem is not None:
        where = f" ({job.problem.file}:{job.problem.line})" if job.problem.line else ""
        console.note(f"warning: {job.problem}{where}")
        console.note(f"  fix: {(job.problem.fix or '').replace('--fix DIR', '--fix repaired')}")
    elif job.errors:
        console.note(
            f"warning: {job.errors} records have errors; `cloudft check` lists them, and"
            " `cloudft check --fix DIR` writes a repaired copy"
        )
    return job
