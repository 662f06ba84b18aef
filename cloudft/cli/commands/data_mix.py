"""data mix: spread general records among your own."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, console_options, hidden_aws_options
from cloudft.cli.param_types import SHARE
from cloudft.cli.transform_options import (
    inputs_argument,
    open_transform,
    print_written_files,
    seed_option,
    to_option,
)


@command(
    "mix",
    epilog="\b\nExample:\n  cloudft data mix own.jsonl --with general.jsonl --share 0.2 "
    "--out mixed.jsonl",
)
@inputs_argument
@click.option(
    "--with", "general", multiple=True, required=True, metavar="FILE", help="General records."
)
@click.option("--share", type=SHARE, required=True, help="General share of the result.")
@click.option(
    "--by",
    type=click.Choice(["records", "tokens"]),
    default="records",
    show_default=True,
    help="What the share counts.",
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file to write.")
@to_option
@seed_option
@columns_option
@hidden_aws_options
@console_options
def mix_command(
    inputs: tuple[str, ...],
    general: tuple[str, ...],
    share: float,
    by: str,
    out: Path,
    target: str | None,
    seed: int,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Spread general records among your own, so that the model forgets less of what it knows."""
    with open_transform(console, columns, seed) as work:
        file = work.mix(inputs, general, share, out, by=by, target=target)
    print_written_files({"out": (out, file)}, console)
    return 0
