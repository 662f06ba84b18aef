"""data convert, split, mix, dedupe: files in, new files out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cloudft.cli.options import Console, console_options, parse_settings
from cloudft.cli.param_types import SEED, SHARE, SIMILARITY
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


@click.command(
    "convert",
    epilog="\b\nExamples:\n  cloudft data convert tickets.csv --to messages --out tickets.jsonl\n"
    "  cloudft data convert faq.csv --column prompt=question --column completion=answer "
    "--to converse --out faq.jsonl",
)
@inputs_argument
@click.option("--to", "target", type=click.Choice([*convert_targets(), "csv"]), required=True)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new file.")
@columns_option
@console_options
def convert_command(
    inputs: tuple[str, ...], target: str, out: Path, columns: dict[str, str], console: Console
) -> int:
    """Write records of any accepted shape in another one."""
    with open_transform(console, columns) as work:
        file = work.convert(inputs, target, out)
    print_written_files({"out": (out, file)}, console)
    return 0


@click.command(
    "split",
    epilog="\b\nExamples:\n  cloudft data split tickets.jsonl --validation 0.1 --out parts\n"
    "  cloudft data split tickets.jsonl --validation 0.1 --test 0.2 --group-by user --out parts",
)
@inputs_argument
@click.option("--validation", type=SHARE)
@click.option("--test", type=SHARE)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="A folder.")
@click.option("--group-by", metavar="KEY", help="Records of one value of KEY stay together.")
@click.option("--stratify/--no-stratify", default=True, help="Each label in its share.")
@to_option
@seed_option
@columns_option
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
    """Hold out shares of the records, by content and seed: the same ones whatever their order."""
    shares = {"test": test, "validation": validation}
    asked = {side: share for side, share in shares.items() if share is not None}
    if not asked or sum(asked.values()) >= 1:
        raise click.UsageError("give --validation, --test or both, less than 1 in sum")
    with open_transform(console, columns, seed) as work:
        files = work.split(inputs, asked, out, target=target, group_by=group_by, stratify=stratify)
    print_written_files({side: (out / file.name, file) for side, file in files.items()}, console)
    return 0


@click.command(
    "mix",
    epilog="\b\nExample:\n  cloudft data mix own.jsonl --with general.jsonl --share 0.2 "
    "--out mixed.jsonl",
)
@inputs_argument
@click.option("--with", "general", multiple=True, required=True, metavar="FILE")
@click.option("--share", type=SHARE, required=True)
@click.option(
    "--by", type=click.Choice(["records", "tokens"]), default="records", show_default=True
)
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new file.")
@to_option
@seed_option
@columns_option
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
    """Spread general records among your own, against forgetting."""
    with open_transform(console, columns, seed) as work:
        file = work.mix(inputs, general, share, out, by=by, target=target)
    print_written_files({"out": (out, file)}, console)
    return 0


@click.command(
    "dedupe",
    epilog="\b\nExamples:\n  cloudft data dedupe tickets.jsonl --out unique.jsonl\n"
    "  cloudft data dedupe tickets.jsonl --near 0.8 --out unique.jsonl --output json",
)
@inputs_argument
@click.option("--out", type=click.Path(path_type=Path), required=True, help="The new file.")
@click.option(
    "--near",
    type=SIMILARITY,
    metavar="SIMILARITY",
    help="Near ones too: the Jaccard index of word 3-grams, 0.8 for instance.",
)
@to_option
@columns_option
@console_options
def dedupe_command(
    inputs: tuple[str, ...],
    out: Path,
    near: float | None,
    target: str | None,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Keep the first of all like records, and name the others."""
    from cloudft.types import to_json

    with open_transform(console, columns) as work:
        file, left_out = work.dedupe(inputs, out, near=near, target=target)
    for twin in left_out[:20]:
        console.note(
            f"{twin.file}:{twin.line} is like {twin.of_file}:{twin.of_line} ({twin.similarity:.2f})"
        )
    console.note(f"{len(left_out)} left out")
    print_written_files({"out": (out, file)}, console, leftOut=to_json(left_out))
    return 0
