"""report: write one HTML page about a job."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.errors import JobStateConflict


@command(
    "report",
    epilog="\b\nExamples:\n  cloudft report -\n  cloudft report ticket-router --out router.html",
)
@job_argument
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; default: JOB-report.html.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--no-texts", is_flag=True, help="Leave out the texts of records and answers.")
@aws_options
@console_options
def report_command(
    reference: str, out: Path | None, force: bool, no_texts: bool, console: Console
) -> int:
    """Write one HTML page: the job, its data, curves, evaluation, diagnostics, cost and digests.

    The page needs no other files, no network and no scripts.
    """
    from cloudft.evaluate.history import load_combined_evaluation
    from cloudft.evaluate.report.job_page import render_job_page
    from cloudft.evaluate.report.pages import write_page
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    job = lifecycle.refresh(record, backend)
    points = list(backend.metrics(record.backend_job_id or record.id))
    try:
        evaluation = load_combined_evaluation(record.folder)
    except JobStateConflict:
        evaluation = None
    path = out or Path(f"{record.id}-report.html")
    write_page(
        path, render_job_page(job, points, evaluation, include_texts=not no_texts), force=force
    )
    console.print_result(
        {"job": record.id, "path": path, "evaluated": evaluation is not None}, str(path)
    )
    return 0
