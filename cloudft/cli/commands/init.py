"""init: write a job file to start from."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, complete_job, console_options


@command(
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
