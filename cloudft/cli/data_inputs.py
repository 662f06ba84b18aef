"""Open the data that a command line names: the files of a job, or single files."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.options import Console
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.data.analysis.stats import DatasetStats
    from cloudft.data.findings import Findings
    from cloudft.jobs.input_files import InputFiles
    from cloudft.spec.load import LoadedJob


JOB_FILE_SUFFIXES = {".yaml", ".yml"}
paths_argument = click.argument("paths", metavar="[JOB.yaml | FILE...]", nargs=-1)


def open_inputs(paths: tuple[str, ...]) -> InputFiles:
    """Return the files of a job file (default: cloudft.yaml here), or the files in `paths`."""
    import os

    from cloudft.data.findings import Findings
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.jobs.input_files import InputFiles
    from cloudft.spec.load import load_job
    from cloudft.types import role_field

    findings = Findings()
    if paths and Path(paths[0]).suffix not in JOB_FILE_SUFFIXES:
        sources = SourceResolver(Path.cwd(), findings)
        return InputFiles(None, {"data": sources.resolve("FILE", paths)}, {}, findings)
    if len(paths) > 1:
        raise click.UsageError("name one job file, or files of data")
    job = load_job(Path(paths[0]) if paths else None, environ=os.environ)
    data = job.spec.data
    sources = SourceResolver(job.base_dir, findings)
    named = {"train": data.train, **data.held_out_files}
    files = {role: sources.resolve(role_field(role), patterns) for role, patterns in named.items()}
    columns = {str(name): column for name, column in data.columns.items()}
    return InputFiles(job, files, columns, findings)


def raise_on_errors(findings: Findings, files: Sequence[str] = ()) -> None:
    """Raise CheckFailed when a record could not be read.

    `files` are those that a command reads without a job: what a job file would say is said as the
    command that writes one.
    """
    from cloudft.data.formats.columns_line import with_options
    from cloudft.errors import CheckFailed

    if findings.count_errors():
        listed = findings.all()
        if len(files) == 1:
            listed = with_options(
                listed, shlex.join(["cloudft", "init", "--data", *files]), "--type"
            )
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


def collect_stats(inputs: InputFiles, console: Console) -> dict[str, DatasetStats]:
    """Return the statistics of each role, with exact token counts if the tokenizer is here.

    Raise CheckFailed for invalid records.
    """
    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.stats import DatasetStats
    from cloudft.jobs.input_files import count_tokens

    stats_by_role = {}
    with record_counter(console) as progress:
        for role in inputs.files:
            stats_by_role[role] = DatasetStats()
            stats_by_role[role].add_records(inputs.records(role, progress))
    raise_on_errors(inputs.findings, () if inputs.job else inputs.file_names())
    if inputs.job is not None and has_local_tokenizer(inputs.job, console):
        # The tokenizer's process imports transformers first: seconds without a record.
        console.note("counting tokens with the model's tokenizer ...")
        with record_counter(console, "counting tokens") as progress:
            for role, stats in stats_by_role.items():
                raise_on_errors(
                    count_tokens(inputs, inputs.job, role, stats, progress, echo_notice)
                )
    return stats_by_role


def echo_notice(text: str) -> None:
    """Print a sentence to standard error."""
    click.echo(text, err=True)


def has_local_tokenizer(job: LoadedJob, console: Console) -> bool:
    """Return whether the job's local model has a tokenizer on this machine."""
    from cloudft.backends import DEFAULT_BACKEND, make_backend

    missing = ("TrainerNotInstalled", "NoLocalModel", "WeightsNotHere")
    for finding in make_backend(DEFAULT_BACKEND, Home.from_environ()).check(job):
        if finding.code in missing:
            console.note(f"tokens are estimated: {finding.message}")
            return False
    return True
