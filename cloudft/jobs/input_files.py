"""Read the data of a job file, or of single files: valid records, canonical lines, token counts."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from threading import Timer
from typing import Any

from cloudft.backends import DEFAULT_BACKEND, make_backend
from cloudft.backends.capabilities import SLOW_TOKENIZER, SLOW_TOKENIZER_S, SupportsTokenize
from cloudft.catalogue import is_text_only
from cloudft.data.analysis.stats import DatasetStats
from cloudft.data.findings import Findings
from cloudft.data.formats.record import BadRecord
from cloudft.data.formats.registry import encode_record
from cloudft.data.records import LocatedRecord, read_records
from cloudft.data.sources.source_files import SourceFile
from cloudft.errors import UsageError
from cloudft.spec.load import LoadedJob
from cloudft.storage.home import Home

Notice = Callable[[str], object]
"""Called with a sentence for the user."""


@dataclass(frozen=True)
class InputFiles:
    """The input files by role, and the job that they belong to; None for single files.

    `format` is what single files are read for: texts and pairs are read for some formats only.
    """

    job: LoadedJob | None
    files: dict[str, list[SourceFile]]
    columns: dict[str, str]
    findings: Findings
    format: str = ""

    @property
    def target(self) -> str:
        """Return the format that the records are read for; "" if there is none."""
        if self.job is None:
            return self.format
        return self.job.model.formats[self.job.spec.customization_type]

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
        into = self.findings if findings is None else findings
        return read_records(self.files[role], into, self.columns, progress, self.target)


def count_tokens(
    inputs: InputFiles,
    job: LoadedJob,
    role: str,
    stats: DatasetStats,
    progress: Callable[[int], None],
    on_slow: Notice,
) -> Findings:
    """Set a role's exact token counts, and the length at which the job cuts records.

    Return what was wrong in this pass: with an error, they may not be set. Raise UsageError if the
    data has changed since it was read before.
    """
    second_pass = Findings()
    lines = (line for _, line in canonical_records(inputs, job, role, second_pass))
    facts, replies = tokenize(job, lines, preview=False, on_slow=on_slow)
    counts = array("Q")
    for reply in replies:
        counts.append(reply.get("tokens", 0))
        progress(len(counts))
    if len(counts) != stats.records:
        if second_pass.count_errors():
            return second_pass
        raise UsageError(f"the data of {role} changed while it was read", fix="try again.")
    stats.set_token_counts(counts)
    stats.limit = max_record_length(job, facts["context"])
    return second_pass


def tokenize(
    job: LoadedJob, lines: Iterable[bytes], *, preview: bool, on_slow: Notice
) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """Return the facts of the job's tokenizer, and an iterator with its reply for each line.

    `on_slow` is called from another thread if the tokenizer takes long to load.
    """
    local = make_backend(DEFAULT_BACKEND, Home.from_environ())
    assert isinstance(local, SupportsTokenize)
    replies = iter(local.tokenize(job, lines, preview=preview))
    notice = Timer(SLOW_TOKENIZER_S, on_slow, (SLOW_TOKENIZER,))
    notice.daemon = True
    notice.start()
    try:
        return next(replies), replies
    finally:
        notice.cancel()


def max_record_length(job: LoadedJob, context: int) -> int | None:
    """Return the tokens at which the trainer cuts a record; None if it packs documents."""
    if is_text_only(job.spec.customization_type):
        return None
    return min(job.spec.local.max_length or context, context)


def canonical_records(
    inputs: InputFiles, job: LoadedJob, role: str, findings: Findings, *, first: int = 1
) -> Iterator[tuple[LocatedRecord, bytes]]:
    """Yield a role's records in the base model's format; add invalid ones to `findings`.

    Those before number `first`, from 1, are only read.
    """
    target = job.model.formats[job.spec.customization_type]
    for located in islice(inputs.records(role, findings=findings), first - 1, None):
        try:
            yield located, encode_record(located.record, target)[0]
        except BadRecord as bad:
            file, line = located.file, located.line
            findings.add(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)
