"""report: write one HTML page about a job, or its bill of materials."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.jobs import open_job
from cloudft.cli.options import Console, aws_options, console_options, job_argument
from cloudft.errors import JobStateConflict

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.jobs.lifecycle import Job


@command(
    "report",
    epilog="\b\nExamples:\n  cloudft report -\n  cloudft report ticket-router --out router.html\n"
    "  cloudft report ticket-router --bom router.cdx.json",
)
@job_argument
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File to write; default: JOB-report.html.",
)
@click.option(
    "--bom",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a CycloneDX bill of materials to this file; no page, unless --out names one.",
)
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--no-texts", is_flag=True, help="Leave out the texts of records and answers.")
@aws_options
@console_options
def report_command(
    reference: str,
    out: Path | None,
    bom: Path | None,
    force: bool,
    no_texts: bool,
    console: Console,
) -> int:
    """Write one HTML page: the job, its data, curves, evaluation, diagnostics, cost and digests.

    The page needs no other files, no network and no scripts. The bill of materials has the same
    facts for programs: base and license, digests of data and weights, method and settings, scores
    with their intervals, limits and versions. It has no text of any record, and no path.
    """
    from cloudft.jobs import lifecycle

    record, backend, _ = open_job(reference)
    job = lifecycle.refresh(record, backend)
    written: dict[str, object] = {"job": record.id}
    if bom is not None:
        _write_bom(job, bom, force=force)
        written["bom"] = bom
    if bom is None or out is not None:
        written |= _write_page(job, backend, out, force=force, no_texts=no_texts)
    paths = [str(written[name]) for name in ("path", "bom") if name in written]
    console.print_result(written, "\n".join(paths))
    return 0


def _write_bom(job: Job, path: Path, *, force: bool) -> None:
    """Write the bill of materials of a completed job, with the digests of its model's files."""
    from cloudft.evaluate.report.pages import write_page
    from cloudft.publishing.bill_of_materials import Materials, render_bom
    from cloudft.publishing.facts import collect_facts
    from cloudft.publishing.model_files import hash_folder
    from cloudft.storage.artifacts import MODEL

    facts = collect_facts(job)
    artifacts = job.state.artifacts
    folder = Path(artifacts) / MODEL if artifacts else None
    files = hash_folder(folder) if folder is not None and folder.is_dir() else []
    write_page(path, render_bom(Materials(facts, files)), force=force)


def _write_page(
    job: Job, backend: Backend, out: Path | None, *, force: bool, no_texts: bool
) -> dict[str, object]:
    """Write the page; return where it is, and whether the job was evaluated."""
    from cloudft.evaluate.history import load_combined_evaluation
    from cloudft.evaluate.report.job_page import render_job_page
    from cloudft.evaluate.report.pages import write_page

    record = job.record
    points = list(backend.metrics(record.backend_job_id or record.id))
    try:
        evaluation = load_combined_evaluation(record.folder)
    except JobStateConflict:
        evaluation = None
    path = out or Path(f"{record.id}-report.html")
    write_page(
        path, render_job_page(job, points, evaluation, include_texts=not no_texts), force=force
    )
    return {"path": path, "evaluated": evaluation is not None}
