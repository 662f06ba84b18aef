"""data preview: show a record as the model sees it."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.data_inputs import echo_notice, open_inputs, raise_on_errors
from cloudft.cli.options import Console, console_options, hidden_aws_options
from cloudft.cli.param_types import RECORDS
from cloudft.errors import UsageError

if TYPE_CHECKING:
    from cloudft.data.records import LocatedRecord
    from cloudft.jobs.token_preview import Piece, Preview
    from cloudft.spec.load import LoadedJob


@command(
    "preview", epilog="\b\nExamples:\n  cloudft data preview\n  cloudft data preview --record 7"
)
@click.argument("path", metavar="[JOB.yaml]", required=False)
@click.option(
    "--record", type=RECORDS, default=1, show_default=True, help="Number of the record, from 1."
)
@hidden_aws_options
@console_options
def preview_command(path: str | None, record: int, console: Console) -> int:
    """Show a training record as the model sees it.

    Tokens in the loss are bold and green on a terminal, and in [[ ]] elsewhere. A line shows where
    the record is cut.
    """
    from cloudft.jobs.input_files import canonical_records

    inputs = open_inputs((path,) if path else ())
    if inputs.job is None:
        raise UsageError(
            f"{path} is not a job file, and the preview depends on the job's model",
            fix="name a job file (.yaml) with this data and a model.",
        )
    found = next(
        canonical_records(inputs, inputs.job, "train", inputs.findings, first=record), None
    )
    raise_on_errors(inputs.findings)
    if found is None:
        raise UsageError(f"there is no record {record}", fix="count from 1.")
    value = preview_json(inputs.job, *found)
    console.note(preview_note(value))
    console.print_result(value, preview_text(value))
    return 0


def preview_json(job: LoadedJob, located: LocatedRecord, line: bytes) -> Preview:
    """Return a record as tokens of the local model. `cutAt` is None when all of it fits."""
    from cloudft.jobs.input_files import tokenize
    from cloudft.jobs.token_preview import describe_tokens

    facts, replies = tokenize(job, [line], preview=True, on_slow=echo_notice)
    return describe_tokens(job, located, facts, next(replies))


def preview_note(value: Preview) -> str:
    """Return where the record is, how long it is, and how many of its tokens are trained on."""
    rendered = f"chat template: {value['template']}" if value["template"] else "packed with others"
    left_out = f", without {', '.join(value['leftOut'])}" if value["leftOut"] else ""
    note = (
        f"{value['file']}:{value['line']}: read as {value['readAs']}{left_out};"
        f" {value['length']} tokens"
    )
    if value["isPrompt"]:
        return f"{note} of a prompt, which is answered in training; {rendered}"
    note += f", {value['learned']} in the loss"
    if not value["learned"]:
        note += ", so the trainer leaves the record out"
    return f"{note}; {rendered}"


def preview_text(value: Preview) -> str:
    """Return the tokens as text, with a line where the record is cut; both answers of a pair."""
    texts = [_row_text(pieces, value["cutAt"]) for pieces in value["rows"]]
    if len(texts) == 1:
        return texts[0]
    titles = ("chosen", "rejected")
    return "\n".join(f"--- {t} ---\n{text}" for t, text in zip(titles, texts, strict=True))


def _row_text(pieces: list[Piece], cut: int | None) -> str:
    text = mark_trained_tokens(pieces[:cut])
    if cut is None or len(pieces) <= cut:
        return text
    rest = "".join(piece["text"] for piece in pieces[cut:])
    return f"{text}\n--- cut here, after {cut} tokens (local.max_length) ---\n{rest}"


def mark_trained_tokens(pieces: list[Piece]) -> str:
    """Return tokens as text, those in the loss marked."""
    parts = []
    for learned, group in itertools.groupby(pieces, key=lambda piece: piece["learned"]):
        text = "".join(piece["text"] for piece in group)
        if learned:
            on_terminal = sys.stdout.isatty()
            text = click.style(text, fg="green", bold=True) if on_terminal else f"[[{text}]]"
        parts.append(text)
    return "".join(parts)
