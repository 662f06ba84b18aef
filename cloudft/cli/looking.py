"""data stats: what the data is like, by the model's own tokens; and which data a command means."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.options import Console, console_options
from cloudft.data.tokens import TOKEN_RULE
from cloudft.home import Home

if TYPE_CHECKING:
    from cloudft.data.findings import Findings
    from cloudft.data.records import Located
    from cloudft.data.sources import SourceFile
    from cloudft.data.stats import Stats
    from cloudft.spec.load import LoadedJob

JOB_SUFFIXES = {".yaml", ".yml"}
SHOWN = 5
"""Contradictions that the text names; JSON has more."""
BAR = 40
paths_argument = click.argument("paths", metavar="[JOB.yaml | FILE...]", nargs=-1)


@dataclass(frozen=True)
class Looked:
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
    ) -> Iterator[Located]:
        """The good records of a role. Another reading has `findings` of its own: the same again."""
        from cloudft.data.records import located

        noted = self.findings if findings is None else findings
        return located(self.files[role], noted, self.columns, progress)


def look_at(paths: tuple[str, ...]) -> Looked:
    """What the command line names: a job file (the one here, when nothing is named), or files."""
    import os

    from cloudft.data.findings import Findings
    from cloudft.data.sources import Sources
    from cloudft.spec.load import load_job

    findings = Findings()
    if paths and Path(paths[0]).suffix not in JOB_SUFFIXES:
        sources = Sources(Path.cwd(), findings)
        return Looked(None, {"data": sources.files("FILE", paths)}, {}, findings)
    if len(paths) > 1:
        raise click.UsageError("one job file at a time")
    job = load_job(Path(paths[0]) if paths else None, environ=os.environ)
    data = job.spec.data
    sources = Sources(job.base_dir, findings)
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    files = {
        role: sources.files(f"data.{role}", patterns)
        for role, patterns in named.items()
        if isinstance(patterns, tuple)
    }
    columns = {str(name): column for name, column in data.columns.items()}
    return Looked(job, files, columns, findings)


def raise_errors(findings: Findings) -> None:
    """Raise CheckFailed when a record could not be read."""
    from cloudft.errors import CheckFailed

    if findings.errors():
        listed = findings.all()
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)


def gather(looked: Looked, console: Console) -> dict[str, Stats]:
    """The statistics of each role, with true token counts where the model's tokenizer is here.

    Raises CheckFailed for records that can't be used.
    """
    from cloudft.cli.progress import reading
    from cloudft.data.stats import Stats

    found = {}
    with reading(console) as progress:
        for role in looked.files:
            found[role] = Stats()
            found[role].add_all(looked.records(role, progress))
    raise_errors(looked.findings)
    if looked.job is not None and model_is_here(looked.job, console):
        with reading(console, "counting tokens") as progress:
            for role, stats in found.items():
                count_tokens(looked, looked.job, role, stats, progress)
    return found


def model_is_here(job: LoadedJob, console: Console) -> bool:
    """True when the tokenizer of the job's local model can be asked without a download."""
    from cloudft.backends import backend

    missing = ("TrainerNotInstalled", "NoLocalModel", "WeightsNotHere")
    for finding in backend("local", Home.from_environ()).check(job):
        if finding.code in missing:
            console.note(f"tokens are estimated: {finding.message}")
            return False
    return True


def count_tokens(
    looked: Looked, job: LoadedJob, role: str, stats: Stats, progress: Callable[[int], None]
) -> None:
    """The model's own numbers of tokens for a role's estimates, and where the job cuts."""
    from cloudft.data.findings import Findings
    from cloudft.errors import UsageError

    again = Findings()
    lines = (line for _, line in canonical_lines(looked, job, role, again))
    facts, replies = tokenise(job, lines, preview=False)
    counts = array("Q")
    for reply in replies:
        counts.append(reply["tokens"])
        progress(len(counts))
    raise_errors(again)
    if len(counts) != stats.records:
        raise UsageError(f"the data of {role} changed while it was read", fix="try again.")
    stats.take_tokens(counts)
    stats.limit = cut_length(job, facts["context"])


def tokenise(
    job: LoadedJob, lines: Iterable[bytes], *, preview: bool
) -> tuple[Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """The facts of the job's local model, and what it makes of canonical lines."""
    from cloudft.backends import backend
    from cloudft.backends.base import Tokenises

    local = backend("local", Home.from_environ())
    assert isinstance(local, Tokenises)
    replies = iter(local.tokenise(job, lines, preview=preview))
    return next(replies), replies


def cut_length(job: LoadedJob, context: int) -> int | None:
    """Tokens at which the trainer cuts a record; None where it packs documents instead."""
    if job.spec.customization_type == "CONTINUED_PRE_TRAINING":
        return None
    return min(job.spec.local.max_length or context, context)


def canonical_lines(
    looked: Looked, job: LoadedJob, role: str, findings: Findings
) -> Iterator[tuple[Located, bytes]]:
    """A role's records in the form that the base model takes; bad ones go into `findings`."""
    from cloudft.data.convert import canonical
    from cloudft.data.record import BadRecord

    target = job.model.formats[job.spec.customization_type]
    for located in looked.records(role, findings=findings):
        try:
            yield located, canonical(located.record, target)[0]
        except BadRecord as bad:
            file, line = located.file, located.line
            findings.note(bad.code, bad.message, bad.fix, file=file, line=line, field=bad.field)


@click.command(
    "stats", epilog="\b\nExamples:\n  cloudft data stats\n  cloudft data stats tickets.jsonl"
)
@paths_argument
@console_options
def stats_command(paths: tuple[str, ...], console: Console) -> int:
    """Count records, tokens, labels, twins and contradictions.

    Tokens are the local model's own when a job file is named and the model is here, else estimated.
    """
    found = {role: stats.to_json() for role, stats in gather(look_at(paths), console).items()}
    console.result(found, "\n\n".join(stats_text(found)))
    return 0


def stats_text(found: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The statistics as tables, one after another."""
    from cloudft.cli.render import table

    rows = [
        (
            role,
            value["records"],
            value["tokens"]["sum"],
            f"{value['tokens'].get('p50', 0):.0f}",
            value["tokens"].get("greatest", 0),
            value["duplicates"],
            value["conflicts"]["count"],
            ", ".join(list(value["languages"])[:3]),
        )
        for role, value in found.items()
    ]
    names = ("SET", "RECORDS", "TOKENS", "MEDIAN", "LONGEST", "TWINS", "CONFLICTS", "LANGUAGES")
    yield table(names, rows)
    for role, value in found.items():
        if value["records"]:
            yield table((f"TOKENS ({role})", "RECORDS", ""), histogram(value["tokens"]))
            yield table((f"CUT AT ({role})", "RECORDS CUT", ""), cuts(value["tokens"]))
        if value["labels"]:
            labels = ((label[:40], count) for label, count in value["labels"].items())
            yield table((f"LABEL ({role})", "RECORDS"), labels)
        conflicts = [
            f"{conflict['file']}:{conflict['line']} answers the input of"
            f" {conflict['ofFile']}:{conflict['ofLine']} differently"
            for conflict in value["conflicts"]["first"][:SHOWN]
        ]
        if conflicts:
            yield "\n".join(conflicts)
    if any(value["tokens"]["estimated"] for value in found.values()):
        yield TOKEN_RULE


def histogram(tokens: Mapping[str, Any]) -> Iterator[tuple[str, int, str]]:
    """Ten rows at most: from how many tokens up to how many, how many records, a bar."""
    edges, numbers = tokens["histogram"]["edges"], tokens["histogram"]["records"]
    step = -(-len(numbers) // 10)
    groups = [numbers[at : at + step] for at in range(0, len(numbers), step)]
    most = max(sum(group) for group in groups)
    for place, group in enumerate(groups):
        low, high = edges[place * step], edges[min(len(numbers), (place + 1) * step)]
        count = sum(group)
        yield f"{low:.0f} to {high:.0f}", count, "#" * -(-BAR * count // most)


def cuts(tokens: Mapping[str, Any]) -> Iterator[tuple[int, int, str]]:
    """How many records would be cut at each length."""
    for at, count in tokens["cut"].items():
        yield int(at), count, "this job" if int(at) == tokens["limit"] else ""
