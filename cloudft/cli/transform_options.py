"""Options of the data commands that write files, and what they print."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudft.cli.options import Console, parse_settings
from cloudft.cli.param_types import SEED
from cloudft.data.formats.registry import convert_targets

if TYPE_CHECKING:
    from cloudft.types import StagedFile


Function = TypeVar("Function", bound=Callable[..., Any])
inputs_argument = click.argument("inputs", metavar="IN...", nargs=-1, required=True)
columns_option = click.option(
    "--column",
    "columns",
    multiple=True,
    metavar="NAME=YOURS",
    callback=parse_settings,
    help="Your column names: --column prompt=question --column completion=answer",
)
seed_option = click.option("--seed", type=SEED, default=7, show_default=True)
to_option = click.option(
    "--to",
    "target",
    type=click.Choice(convert_targets()),
    help="Format of the output; else the input's.",
)


def open_transform(console: Console, columns: dict[str, str], seed: int = 7) -> Any:
    """A Rewriting that shows its progress, for a with statement."""
    import contextlib

    from cloudft.cli.output import print_findings
    from cloudft.cli.progress import record_counter
    from cloudft.data.staging.dataset_transform import DatasetTransform

    @contextlib.contextmanager
    def within() -> Any:
        with record_counter(console) as progress:
            work = DatasetTransform(columns, seed, progress)
            yield work
        if console.verbosity >= 0:
            print_findings(work.findings.all())

    return within()


def print_written_files(
    files: dict[str, tuple[Path, StagedFile]], console: Console, **more: Any
) -> None:
    """What was written."""
    from cloudft.types import to_json

    value = {side: {"path": path, **to_json(file)} for side, (path, file) in files.items()}
    lines = [f"{path}: {file.records} records" for path, file in files.values()]
    console.print_result({"files": value, **more}, "\n".join(lines))
