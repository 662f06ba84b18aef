"""data leakage: find held-out records that are in the training set."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, console_options, hidden_aws_options
from cloudft.cli.param_types import SIMILARITY

LEAKS_SHOWN = 20


@command(
    "leakage",
    epilog="\b\nExample:\n  cloudft data leakage --train train.jsonl --test test.jsonl --near 0.8",
)
@click.option("--train", multiple=True, required=True, metavar="FILE", help="Training data.")
@click.option("--validation", multiple=True, metavar="FILE", help="Validation data.")
@click.option("--test", multiple=True, metavar="FILE", help="Test data.")
@click.option(
    "--near",
    type=SIMILARITY,
    metavar="SIMILARITY",
    help="Find near duplicates too: a Jaccard index of word 3-grams, for example 0.8.",
)
@columns_option
@hidden_aws_options
@console_options
def leakage_command(
    train: tuple[str, ...],
    validation: tuple[str, ...],
    test: tuple[str, ...],
    near: float | None,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Find held-out records that are in the training set.

    Exit code 3 when there are any: an evaluation on them would overrate the model.
    """
    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.leakage import LeakageIndex
    from cloudft.data.findings import Findings
    from cloudft.data.formats.columns_line import with_options
    from cloudft.data.records import read_records
    from cloudft.data.sources.source_files import SourceResolver
    from cloudft.errors import CheckFailed
    from cloudft.types import to_json

    if not validation and not test:
        raise click.UsageError("add --validation, --test or both")
    findings = Findings()
    sources = SourceResolver(Path.cwd(), findings)
    with record_counter(console) as progress:
        known = LeakageIndex(
            read_records(sources.resolve("--train", train), findings, columns, progress), near
        )
        leaks = [
            leak
            for role, paths in (("validation", validation), ("test", test))
            for leak in known.find_leaks(
                role, read_records(sources.resolve(f"--{role}", paths), findings, columns, progress)
            )
        ]
    if findings.count_errors():
        listed = with_options(findings.all())
        raise CheckFailed(next(f.message for f in listed if f.severity == "error"), listed)
    lines = [
        f"{leak.file}:{leak.line} ({leak.role}): {leak.kind} as {leak.train_file}:{leak.train_line}"
        for leak in leaks
    ]
    more = [f"... and {len(lines) - LEAKS_SHOWN} more"] if len(lines) > LEAKS_SHOWN else []
    text = "\n".join([*lines[:LEAKS_SHOWN], *more, f"{len(lines)} leaks"])
    console.print_result({"leaks": to_json(leaks), "count": len(leaks)}, text)
    return 3 if leaks else 0
