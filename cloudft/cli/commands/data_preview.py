"""data preview: a record as the model will see it."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from cloudft.cli.command import command
from cloudft.cli.data_inputs import (
    canonical_records,
    max_record_length,
    open_inputs,
    raise_on_errors,
    tokenize,
)
from cloudft.cli.options import Console, console_options, hidden_aws_options
from cloudft.cli.param_types import RECORDS
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.data.records import LocatedRecord
    from cloudft.spec.load import LoadedJob


@command(
    "preview", epilog="\b\nExamples:\n  cloudft data preview\n  cloudft data preview --record 7"
)
@click.argument("path", metavar="[JOB.yaml]", required=False)
@click.option("--record", type=RECORDS, default=1, show_default=True, help="Which one.")
@hidden_aws_options
@console_options
def preview_command(path: str | None, record: int, console: Console) -> int:
    """Show a training record as the model will see it.

    Tokens that are trained on are bold and green on a terminal, and stand in [[ ]] elsewhere; a
    line shows where the record is cut.
    """
    looked = open_inputs((path,) if path else ())
    if looked.job is None:
        raise UsageError(
            f"{path} is no job file: what a model sees depends on the model",
            fix="name a job file (.yaml) that has the data and the model.",
        )
    lines = canonical_records(looked, looked.job, "train", looked.findings)
    found = next(itertools.islice(lines, record - 1, record), None)
    raise_on_errors(looked.findings)
    if found is None:
        raise UsageError(f"there is no record {record}", fix="count from 1.")
    value = preview_json(looked.job, *found)
    console.note(preview_note(value))
    console.print_result(value, preview_text(value))
    return 0


def preview_json(job: LoadedJob, located: LocatedRecord, line: bytes) -> dict[str, Any]:
    """A record as the tokens of the local model. `cutAt` is None when all of it fits."""
    facts, replies = tokenize(job, [line], preview=True)
    pieces = next(replies)["pieces"]
    limit = max_record_length(job, facts["context"])
    return {
        "file": located.file,
        "line": located.line,
        "pieces": pieces,
        "length": len(pieces),
        "learned": sum(piece["learned"] for piece in pieces[:limit]),
        "cutAt": limit if limit is not None and len(pieces) > limit else None,
        "template": None if limit is None else facts["chatTemplate"],
    }


def preview_note(value: Mapping[str, Any]) -> str:
    """What is not in the text: how long it is, and what becomes of it."""
    rendered = f"chat template: {value['template']}" if value["template"] else "packed with others"
    note = f"{value['file']}:{value['line']}: {value['length']} tokens, {value['learned']} learned"
    if not value["learned"]:
        note += ", so the trainer leaves the record out"
    return f"{note}; {rendered}"


def preview_text(value: Mapping[str, Any]) -> str:
    """The tokens as text, with a line where they are cut."""
    cut = value["cutAt"]
    text = mark_trained_tokens(value["pieces"][:cut])
    if cut is None:
        return text
    rest = "".join(piece["text"] for piece in value["pieces"][cut:])
    return f"{text}\n--- cut here, behind {cut} tokens (local.max_length) ---\n{rest}"


def mark_trained_tokens(pieces: list[dict[str, Any]]) -> str:
    """Tokens as text, the learned ones marked."""
    parts = []
    for learned, group in itertools.groupby(pieces, key=lambda piece: piece["learned"]):
        text = "".join(piece["text"] for piece in group)
        if learned:
            on_terminal = sys.stdout.isatty()
            text = click.style(text, fg="green", bold=True) if on_terminal else f"[[{text}]]"
        parts.append(text)
    return "".join(parts)
