"""data convert: write records in another format."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, console_options, hidden_aws_options
from cloudft.cli.transform_options import (
    inputs_argument,
    open_transform,
    print_written_files,
)
from cloudft.data.formats.registry import convert_targets


@command(
    "convert",
    epilog="\b\nExamples:\n  cloudft data convert tickets.csv --to messages --out tickets.jsonl\n"
    "  cloudft data convert faq.csv --column prompt=question --column completion=answer "
    "--to converse --out faq.jsonl\n"
    "  cloudft data convert notes.txt --lines --to text --out notes.jsonl",
)
@inputs_argument
@click.option(
    "--to",
    "target",
    type=click.Choice([*convert_targets(), "csv"]),
    required=True,
    help="Format of the output.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file to write.")
@click.option(
    "--lines", "by_line", is_flag=True, help="Take each line of a .txt or .md as a document."
)
@columns_option
@hidden_aws_options
@console_options
def convert_command(
    inputs: tuple[str, ...],
    target: str,
    out: Path,
    by_line: bool,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Write records of any accepted format in another one."""
    with open_transform(console, columns) as work:
        file = work.convert(inputs, target, out, by_line=by_line)
    print_written_files({"out": (out, file)}, console)
    return 0
