"""data report: write one self-contained HTML page about the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cloudft.cli.command import command
from cloudft.cli.data_inputs import collect_stats, open_inputs, paths_argument
from cloudft.cli.options import Console, console_options, hidden_aws_options

if TYPE_CHECKING:
    from cloudft.jobs.input_files import InputFiles


@command(
    "report",
    epilog="\b\nExamples:\n  cloudft data report --out data.html\n"
    "  cloudft data report tickets.jsonl --out tickets.html --output json",
)
@paths_argument
@click.option(
    "--out", type=click.Path(path_type=Path), required=True, help="New file for the page (.html)."
)
@hidden_aws_options
@console_options
def report_command(paths: tuple[str, ...], out: Path, console: Console) -> int:
    """Write one HTML page with lengths, labels, duplicates, contradictions and private data.

    It needs no network, and contains no training text but labels. --output json prints the values.
    """
    from cloudft.data.staging.dataset_transform import new_output_file
    from cloudft.evaluate.report.data_page import render_data_page

    with new_output_file(out) as temporary:  # refuses an existing file before the work
        inputs = open_inputs(paths)
        stats = {role: found.to_json() for role, found in collect_stats(inputs, console).items()}
        private = count_private_data(inputs, console)
        page = render_data_page(page_title(inputs), stats, private)
        temporary.write_text(page, encoding="utf-8")
    console.print_result({"sets": stats, "private": private, "page": out}, str(out))
    return 0


def page_title(inputs: InputFiles) -> str:
    """Return the job's name, or the names of the files."""
    if inputs.job is not None:
        name: str = inputs.job.spec.name
        return name
    return ", ".join(source.display_name for files in inputs.files.values() for source in files)


def count_private_data(inputs: InputFiles, console: Console) -> dict[str, dict[str, int]]:
    """Count the private data of each role by kind."""
    from collections import Counter

    from cloudft.cli.progress import record_counter
    from cloudft.data.analysis.duplicates import record_text
    from cloudft.data.analysis.pii_scan import find_pii
    from cloudft.data.findings import Findings

    with record_counter(console, "scanning") as progress:
        return {
            role: dict(
                Counter(
                    hit.kind
                    for located in inputs.records(role, progress, Findings())
                    for hit in find_pii(record_text(located.record))
                )
            )
            for role in inputs.files
        }
