"""label export: write the labeled records as a job's data."""

from __future__ import annotations

from pathlib import Path

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, console_options
from cloudft.data.formats.registry import convert_targets
from cloudft.storage.home import Home


@command(
    "export",
    epilog="\b\nExamples:\n  cloudft label export tickets --out labeled.jsonl\n"
    "  cloudft label export tickets --to messages --out labeled.jsonl",
)
@click.argument("name")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="New file to write.")
@click.option(
    "--to",
    "target",
    type=click.Choice(convert_targets()),
    help="Format; default: that of the project's job, or of its files.",
)
@click.option(
    "--provenance-inside",
    "inside",
    is_flag=True,
    help="Write who labeled what into each record; jobs don't read such a file.",
)
@console_options
def export_command(name: str, out: Path, target: str | None, inside: bool, console: Console) -> int:
    """Write every record that has a label: one that all agree on, by majority, or settled.

    Rejected records and open disagreements are left out. Beside the file, FILE.provenance.jsonl has
    who labeled each record, when, and what was suggested.
    """
    from cloudft.labeling.export import choose_format, export_labels
    from cloudft.labeling.project import open_project

    home = Home.from_environ()
    project = open_project(home.labels, name)
    done = export_labels(project, out, choose_format(project, home, target), inside=inside)
    found = {
        "out": str(done.out),
        "provenance": None if done.provenance is None else str(done.provenance),
        "format": done.format,
        "records": done.records,
        "rejected": done.rejected,
        "open": done.open,
    }
    text = f"wrote {done.records} records ({done.format}) to {done.out}"
    if done.rejected or done.open:
        text += f"; left out: {done.rejected} rejected, {done.open} open to disagreement"
    console.print_result(found, text)
    return 0
