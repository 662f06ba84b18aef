"""data split: hold out records for validation and test."""

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
    "split",
    epilog="\b\nExamples:\n  cloudft data split tickets.jsonl --validation 0.1 --out parts\n"
    "  cloudft data split tickets.jsonl --validation 0.1 --test 0.2 --group-by user --out parts",
)
@inputs_argument
@click.option("--validation", type=SHARE, help="Share of the records, for example 0.1.")
@click.option("--test", type=SHARE, help="Share of the records, for example 0.1.")
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New folder to write to."
)
@click.option(
    "--group-by", metavar="KEY", help="Keep records with the same value of KEY in one part."
)
@click.option(
    "--stratify/--no-stratify", default=True, help="Keep each label's share in all parts."
)
@to_option
@seed_option
@columns_option
@hidden_aws_options
@console_options
def split_command(
    inputs: tuple[str, ...],
    validation: float | None,
    test: float | None,
    out: Path,
    group_by: str | None,
    stratify: bool,
    target: str | None,
    seed: int,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Hold out shares of the records.

    Records are chosen by their content and the seed: the same ones whatever their order.
    """
    shares = {"test": test, "validation": validation}
    held_out = {side: share for side, share in shares.items() if share is not None}
    if not held_out or sum(held_out.values()) >= 1:
        raise click.UsageError("add --validation, --test or both, less than 1 in sum")
    with open_transform(console, columns, seed) as work:
        files = work.split(
            inputs, held_out, out, target=target, group_by=group_by, stratify=stratify
        )
    print_written_files({side: (out / file.name, file) for side, file in files.items()}, console)
    return 0
