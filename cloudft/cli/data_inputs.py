"""Open the data that a command line names: the files of a job, or single files."""

from __future__ import annotations

import shlex
import threading
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.options import Console
from cloudft.storage.home import Home

if TYPE_CHECKING:
    from cloudft.data.analysis.stats import DatasetStats
    from cloudft.data.findings import Findings
    from cloudft.data.records import LocatedRecord
    from cloudft.data.sources.source_files import SourceFile
    from cloudft.spec.load import LoadedJob


JOB_FILE_SUFFIXES = {".yaml", ".yml"}
paths_argument = click.argument("paths", metavar="[JOB.yaml | FILE...]", nargs=-1)


@dataclass(frozen=True)
class InputFiles:
    """The input files by role, and the job that they belong to; None for single files."""

    job: LoadedJob | None
    files: dict[str, list[SourceFile]]
    columns: dict[str, str]
    findings: Findings

    def file_names(self) -> list[str]:
        """Return the names of the files, as messages have them."""
        return [source.display_name for sources in self.files.values() for source in sources]

    def records(
        self,
        role: str,
        progress: Callable[[int], None] | None = None,
        findings: Findings | None = None,
    ) -> Iterator[LocatedRecord]:
        """Yield the valid records of a role, and add errors to `findings`.

        `findings` is by default the object's own. A second pass others, or every
        error would be listed twice.
        """
        from cloudft.data.records import read_records

        into = self.findings if findings is None else findings
        job = self.job
        target = job.model.formats[job.spec.customization_type] if job else ""
        return read_records(self.files[role], into, self.columns, progress, target)


def open_inputs(paths: tuple[str, ...]) -> InputFiles:
    """Return the files of a job file (default: cloudft.yaml here), or the files in `paths`."""
    import os

    from cloudft.data.findings import Findings
    from cloudft.data.sources.source_files import SourceResolver
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
                count_tokens(inputs, inputs.job, role, stats, progress)
    return stats_by_role


def has_local_tokenizer(job: LoadedJob, console: Console) -> bool:
    """Return whether the job's local model has a tokenizer on this machine."""
    from cloudft.backends import DEFAULT_BACKEND, make_backend

    missing = ("TrainerNotInstalled", "NoLocalModel", "WeightsNotHere")
    for finding in make_backend(DEFAULT_BACKEND, Home.from_environ()).check(job):
        if finding.code in missing:
            console.note(f"tokens are estimated: {finding.message}")
            return False
    return True


def count_tokens(
    inputs: InputFiles,
    job: LoadedJob,
    role: str,
    stats: DatasetStats,
    progress: Callable[[int], None],
) -> None:
    """Set a role's exact token counts, and the length at which the job cuts records."""
    from cloudft.data.findings import Findings
    from cloudft.errors import UsageError

    second_pass = Findings()
    lines = (line for _, line in canonical_records(inputs, job, role, second_pass))
    facts, replies = tokenize(job, lines, preview=False)
    counts = array("Q")
    for reply in replies:
        counts.append(reply["tokens"])
        progress(len(counts))
    raise_on_errors(second_pass)
    if len(counts) != stats.records:
        raise UsageError(f"the data of {role} changed while it was read", fix="try again.")
    stats.set_token_counts(counts)
    stats.limit = max_record_length(job, facts["context"])


def tokenize(
    job: LoadedJob, lines: Iterable[bytes], *, preview: bool
) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """Return the facts of the job's tokenizer, and an iterator with its reply for each line."""
    from cloudft.backends import DEFAULT_BACKEND, make_backend
    from cloudft.backends.capabilities import (
        SLOW_TOKENIZER,
        SLOW_TOKENIZER_S,
        SupportsTokenize,
    )

    local = make_backend(DEFAULT_BACKEND, Home.from_environ())
    assert isinstance(local, SupportsTokenize)
    replies = iter(local.tokenize(job, lines, preview=preview))
    notice = threading.Timer(SLOW_TOKENIZER_S, click.echo, (SLOW_TOKENIZER,), {"err": True})
    notice.daemon = True
    notice.start()
    try:
        return next(replies), replies
    finally:
        notice.cancel()


def max_record_length(job: LoadedJob, context: int) -> int | None:
    """Return the tokens at which the trainer cuts a record; None if it packs documents."""
    from cloudft.catalogue import is_text_only

    if is_text_only(job.spec.customization_type):
        return None
    return min(job.spec.local.max_length or context, context)


def canonical_records(
    inputs: InputFiles, job: LoadedJob, role: str, findings: Findings, *, first: int = 1
) -> Iterator[tuple[LocatedRecord, bytes]]:
    """Yield a role's records in the base model's format; add invalid ones to `findings`.

    Those before number `first`, from 1, are only read.
    """
    from cloudft.data.formats.record import BadRecord
    from cloudft.data.formats.registry import encode_record

    target = job.model.formats[job.spec.customization_type]
    for located in islice(inputs.records(role, findings=findings), first - 1, None):
        try:
            yield located, encode_record(located.record, target)[0]
        except BadRecord as bad:
            file, line = located.file, located.line
            findings.add(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)
