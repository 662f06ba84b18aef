"""data dedupe: keep the first of duplicate records."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, console_options, hidden_aws_options
from cloudft.cli.param_types import SIMILARITY
from cloudft.cli.transform_options import (
    inputs_argument,
    open_transform,
    print_written_files,
    to_option,
)


@command(
    "dedupe",
    epilog="\b\nExamples:\n  cloudft data dedupe tickets.jsonl --out unique.jsonl\n"
    "  cloudft data dedupe tickets.jsonl --near 0.8 --out unique.jsonl --output json",
)
@inputs_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file to write.")
@click.option(
    "--near",
    type=SIMILARITY,
    metavar="SIMILARITY",
    help="Drop near duplicates too: a Jaccard index of word 3-grams, for example 0.8.",
)
@to_option
@columns_option
@hidden_aws_options
@console_options
def dedupe_command(
    inputs: tuple[str, ...],
    out: Path,
    near: float | None,
    target: str | None,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Keep the first of duplicate records, and list the others."""
    from cloudft.types import to_json

    with open_transform(console, columns) as work:
        file, left_out = work.dedupe(inputs, out, near=near, target=target)
    for duplicate in left_out[:20]:
        console.note(
            f"{duplicate.file}:{duplicate.line} duplicates"
            f" {duplicate.of_file}:{duplicate.of_line} ({duplicate.similarity:.2f})"
        )
    console.note(f"{len(left_out)} duplicates left out")
    print_written_files({"out": (out, file)}, console, leftOut=to_json(left_out))
    return 0
