"""data stats, preview and report: what the data is like, and what the model will see of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.options import Console, console_options
from cloudft.home import Home

if TYPE_CHECKING:
    from cloudft.data.findings import Findings
    from cloudft.data.records import Located
    from cloudft.data.sources import SourceFile
    from cloudft.data.stats import Stats
    from cloudft.spec.load import LoadedJob

JOB_SUFFIXES = {".yaml", ".yml"}
paths_argument = click.argument("paths", metavar="[JOB.yaml | FILE...]", nargs=-1)


@dataclass(frozen=True)
class Looked:
    """The files to look at by role, and the job that they are of, if they are one's."""

    job: LoadedJob | None
    files: dict[str, list[SourceFile]]
    columns: dict[str, str]
    findings: Findings

    def records(self, role: str) -> Iterator[Located]:
        """The good records of a role."""
        from cloudft.data.records import located

        return located(self.files[role], self.findings, self.columns)


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
    """The statistics of each role, with true token counts where the model's tokenizer is here."""
    from cloudft.cli.progress import reading
    from cloudft.data.stats import Stats

    found = {}
    with reading(console) as progress:
        for role in looked.files:
            found[role] = Stats()
            found[role].add_all(counted(looked.records(role), progress))
    raise_errors(looked.findings)
    for role, stats in found.items():
        replies = tokenised(looked, role, console)
        if replies is not None:
            next(replies)
            stats.take_tokens(reply["tokens"] for reply in replies)
    return found


def counted(records: Iterator[Located], progress: Any) -> Iterator[Located]:
    """The same records, their number told as they go by."""
    for number, record in enumerate(records, 1):
        progress(number)
        yield record


def tokenised(
    looked: Looked, role: str, console: Console, *, preview: bool = False
) -> Iterator[Any] | None:
    """What the job's local model makes of a role's records; None without one."""
    from cloudft.backends import backend
    from cloudft.backends.base import Tokenises

    if looked.job is None:
        return None
    local = backend("local", Home.from_environ())
    assert isinstance(local, Tokenises)
    problems = [finding for finding in local.check(looked.job) if finding.severity == "error"]
    if any(f.code in ("TrainerNotInstalled", "NoLocalModel", "WeightsNotHere") for f in problems):
        console.note(f"tokens are estimated: {problems[0].message}")
        return None
    lines = canonical_lines(looked, role)
    return iter(local.tokenise(looked.job, lines, preview=preview))


def canonical_lines(looked: Looked, role: str) -> Iterator[bytes]:
    """A role's records in the form that the base model takes."""
    from cloudft.data.convert import canonical
    from cloudft.data.record import BadRecord

    assert looked.job is not None
    target = looked.job.model.formats[looked.job.spec.customization_type]
    for located in looked.records(role):
        try:
            yield canonical(located.record, target)[0]
        except BadRecord as bad:
            looked.findings.note(
                bad.code, bad.message, bad.fix, file=located.file, line=located.line
            )


@click.command(
    "stats", epilog="\b\nExamples:\n  cloudft data stats\n  cloudft data stats tickets.jsonl"
)
@paths_argument
@console_options
def stats_command(paths: tuple[str, ...], console: Console) -> int:
    """Count records, tokens, labels, twins and contradictions.

    Tokens are the local model's own when a job file is named and the model is here, else estimated.
    """
    from cloudft.cli.render import table

    found = {role: stats.to_json() for role, stats in gather(look_at(paths), console).items()}
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
    parts = [table(names, rows)]
    for role, value in found.items():
        if value["labels"]:
            labels = ((label[:40], count) for label, count in value["labels"].items())
            parts.append(table((f"LABEL ({role})", "RECORDS"), labels))
        for conflict in value["conflicts"]["first"][:5]:
            parts.append(
                f"{conflict['file']}:{conflict['line']} answers the input of"
                f" {conflict['ofFile']}:{conflict['ofLine']} differently"
            )
    if any(value["tokens"]["estimated"] for value in found.values()):
        parts.append("tokens are estimated from characters")
    console.result(found, "\n\n".join(parts))
    return 0


@click.command(
    "preview", epilog="\b\nExamples:\n  cloudft data preview\n  cloudft data preview --record 7"
)
@click.argument("path", metavar="[JOB.yaml]", required=False)
@click.option("--record", type=click.IntRange(1), default=1, show_default=True, help="Which one.")
@console_options
def preview_command(path: str | None, record: int, console: Console) -> int:
    """Show a training record as the model will see it.

    Tokens that are trained on are green on a terminal, and stand in [[ ]] elsewhere; a line shows
    where the record is cut.
    """
    from cloudft.errors import UsageError

    looked = look_at((path,) if path else ())
    if looked.job is None:
        raise UsageError(
            f"{path} is no job file: what a model sees depends on the model",
            fix="name a job file (.yaml) that has the data and the model.",
        )
    one = itertools.islice(canonical_lines(looked, "train"), record - 1, record)
    value = preview_of(looked.job, list(one))
    raise_errors(looked.findings)
    if value is None:
        raise UsageError(f"there is no record {record}", fix="count from 1.")
    text = marked(value["pieces"][: value["cutAt"]])
    if value["cutAt"] is not None:
        text += f"\n--- cut here, at local.max_length {value['cutAt']} ---\n"
        text += marked(value["pieces"][value["cutAt"] :])
    learned = sum(piece["learned"] for piece in value["pieces"])
    console.note(f"{len(value['pieces'])} tokens, {learned} of them learned; {value['template']}")
    console.result(value, text)
    return 0


def preview_of(job: LoadedJob, lines: list[bytes]) -> dict[str, Any] | None:
    """A canonical line as tokens, from the local model's tokenizer; None without a line."""
    from cloudft.backends import backend
    from cloudft.backends.base import Tokenises

    if not lines:
        return None
    local = backend("local", Home.from_environ())
    assert isinstance(local, Tokenises)
    facts, found = local.tokenise(job, lines, preview=True)
    longest = min(job.spec.local.max_length or facts["context"], facts["context"])
    packed = job.spec.customization_type == "CONTINUED_PRE_TRAINING"
    cut = longest if len(found["pieces"]) > longest and not packed else None
    template = (
        "packed with other documents" if packed else f"chat template: {facts['chatTemplate']}"
    )
    return {"pieces": found["pieces"], "cutAt": cut, "template": template}


def marked(pieces: list[dict[str, Any]]) -> str:
    """Tokens as text, the learned ones marked."""
    import sys

    parts = []
    for learned, group in itertools.groupby(pieces, key=lambda piece: piece["learned"]):
        text = "".join(piece["text"] for piece in group)
        if learned:
            text = click.style(text, fg="green") if sys.stdout.isatty() else f"[[{text}]]"
        parts.append(text)
    return "".join(parts)
