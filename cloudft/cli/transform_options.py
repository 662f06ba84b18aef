"""Define the options of the data commands that write files, and print their result."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.options import Console
from cloudft.cli.param_types import SEED
from cloudft.data.formats.registry import convert_targets

if TYPE_CHECKING:
    from cloudft.data.staging.dataset_transform import DatasetTransform
    from cloudft.types import StagedFile


inputs_argument = click.argument("inputs", metavar="IN...", nargs=-1, required=True)
seed_option = click.option(
    "--seed", type=SEED, default=7, show_default=True, help="Seed that chooses the records."
)
to_option = click.option(
    "--to",
    "target",
    type=click.Choice(convert_targets()),
    help="Format of the output; default: that of the input.",
)


@contextlib.contextmanager
def open_transform(
    console: Console, columns: dict[str, str], seed: int = 7
) -> Iterator[DatasetTransform]:
    """Yield a DatasetTransform that shows its progress; print its findings at the end."""
    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import record_counter
    from cloudft.data.formats.columns_line import with_options
    from cloudft.data.staging.dataset_transform import DatasetTransform

    with record_counter(console) as progress:
        transform = DatasetTransform(columns, seed, progress)
        yield transform
    if console.verbosity >= 0:
        print_findings(with_options(transform.findings.all(), type_option="--to"))


def print_written_files(
    files: dict[str, tuple[Path, StagedFile]], console: Console, **more: object
) -> None:
    """Print the files that were written, with their records; `more` goes into the JSON."""
    from cloudft.types import to_json

    value = {side: {"path": path, **to_json(file)} for side, (path, file) in files.items()}
    lines = [f"{path}: {file.records} records" for path, file in files.values()]
    console.print_result({"files": value, **more}, "\n".join(lines))
