"""Open the data that a command names: the files of a job, or files."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
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
    """The files to look at by role, and the job that they are of, if they are one's."""

    job: LoadedJob | None
    files: dict[str, list[SourceFile]]
    columns: dict[str, str]
    findings: Findings

    def records(
        self,
        role: str,
        progress: Callable[[int], None] | None = None,
        findings: Findings | None = None,
    ) -> Iterator[LocatedRecord]:
        """The good records of a role. Another reading has `findings` of its own: the same again."""
        from cloudft.data.records import read_records

        noted = self.findings if findings is None else findings
        return read_records(self.files[role], noted, self.columns, progress)


def open_inputs(paths: tuple[str, ...]) -> InputFiles:
    """What the command line names: a job file (the one here, when nothing is named), or files."""
    import os

    from cloudft.data.findings import Findings
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.spec.load import load_job

    findings = Findings()
    if paths and Path(paths[0]).suffix not in JOB_FILE_SUFFIXES:
        sources = SourceResolver(Path.cwd(), findings)
        return InputFiles(None, {"data": sources.resolve("FILE", paths)}, {}, findings)
    if len(paths) > 1:
        raise click.UsageError("one job file at a time")
    job = load_job(Path(paths[0]) if paths else None, environ=os.environ)
    data = job.spec.data
    sources = SourceResolver(job.base_dir, findings)
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    files = {
        role: sources.resolve(f"data.{role}", patterns)
        for role, patterns in named.items()
        if isinstance(patterns, tuple)
    }
    columns = {str(name): column for name, column in data.columns.items()}
    return InputFiles(job, files, columns, findings)


def raise_on_errors(findings: Findings) -> None:
    """Raise CheckFailed when a record could not be read."""
    from cloudft.errors import CheckFailed

    if findings.count_errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


def collect_stats(looked: InputFiles, console: Console) -> dict[str, DatasetStats]:
    """The statistics of each role, with true token counts where the model's tokenizer is here.

    Raises CheckFailed for records that can't be used.
    """
    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.stats import DatasetStats

    found = {}
    with record_counter(console) as progress:
        for role in looked.files:
            found[role] = DatasetStats()
            found[role].add_records(looked.records(role, progress))
    raise_on_errors(looked.findings)
    if looked.job is not None and has_local_tokenizer(looked.job, console):
        with record_counter(console, "counting tokens") as progress:
            for role, stats in found.items():
                count_tokens(looked, looked.job, role, stats, progress)
    return found


def has_local_tokenizer(job: LoadedJob, console: Console) -> bool:
    """True when the tokenizer of the job's local model can be asked without a download."""
    from cloudft.backends import DEFAULT_BACKEND, make_backend

    missing = ("TrainerNotInstalled", "NoLocalModel", "WeightsNotHere")
    for finding in make_backend(DEFAULT_BACKEND, Home.from_environ()).check(job):
        if finding.code in missing:
            console.note(f"tokens are estimated: {finding.message}")
            return False
    return True


def count_tokens(
    looked: InputFiles,
    job: LoadedJob,
    role: str,
    stats: DatasetStats,
    progress: Callable[[int], None],
) -> None:
    """The model's own numbers of tokens for a role's estimates, and where the job cuts."""
    from cloudft.data.findings import Findings
    from cloudft.errors import UsageError

    again = Findings()
    lines = (line for _, line in canonical_records(looked, job, role, again))
    facts, replies = tokenize(job, lines, preview=False)
    counts = array("Q")
    for reply in replies:
        counts.append(reply["tokens"])
        progress(len(counts))
    raise_on_errors(again)
    if len(counts) != stats.records:
        raise UsageError(f"the data of {role} changed while it was read", fix="try again.")
    stats.set_token_counts(counts)
    stats.limit = max_record_length(job, facts["context"])


def tokenize(
    job: LoadedJob, lines: Iterable[bytes], *, preview: bool
) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """The facts of the job's local model, and what it makes of canonical lines."""
    from cloudft.backends import DEFAULT_BACKEND, make_backend
    from cloudft.backends.capabilities import SupportsTokenize

    local = make_backend(DEFAULT_BACKEND, Home.from_environ())
    assert isinstance(local, SupportsTokenize)
    replies = iter(local.tokenize(job, lines, preview=preview))
    return next(replies), replies


def max_record_length(job: LoadedJob, context: int) -> int | None:
    """Tokens at which the trainer cuts a record; None where it packs documents instead."""
    if job.spec.customization_type == "CONTINUED_PRE_TRAINING":
        return None
    return min(job.spec.local.max_length or context, context)


def canonical_records(
    looked: InputFiles, job: LoadedJob, role: str, findings: Findings
) -> Iterator[tuple[LocatedRecord, bytes]]:
    """A role's records in the form that the base model takes; bad ones go into `findings`."""
    from cloudft.data.formats.record import BadRecord
    from cloudft.data.formats.registry import encode_record

    target = job.model.formats[job.spec.customization_type]
    for located in looked.records(role, findings=findings):
        try:
            yield located, encode_record(located.record, target)[0]
        except BadRecord as bad:
            file, line = located.file, located.line
            findings.add(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)
