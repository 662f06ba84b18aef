"""label create: make a labeling project from files of records."""

from __future__ import annotations

import click

from cloudft.cli.command import command
from cloudft.cli.options import Console, columns_option, console_options
from cloudft.cli.param_types import SEED
from cloudft.storage.home import Home

KINDS = ("labels", "text", "check")
SHARE = click.FloatRange(0, 1)


@command(
    "create",
    epilog="\b\nExamples:\n  cloudft label create tickets tickets.jsonl --job ticket-router\n"
    "  cloudft label create faq questions.csv --column prompt=question --kind text\n"
    "  cloudft label create mails mails.jsonl --label spam --label wanted",
)
@click.argument("name")
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.option(
    "--kind",
    type=click.Choice(KINDS),
    default="labels",
    show_default=True,
    help="Choose labels, write answers, or check the records' answers.",
)
@click.option("--label", "labels", multiple=True, help="A label; default: those of the data.")
@click.option("--job", help="Job of this machine whose models suggest.")
@click.option(
    "--random",
    "random_share",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Share that is drawn at random, to measure how often suggestions are right.",
)
@click.option(
    "--overlap",
    "overlap_share",
    type=SHARE,
    default=0.1,
    show_default=True,
    help="Share that everybody labels, to measure agreement.",
)
@click.option("--seed", type=SEED, default=7, show_default=True, help="Seed of both draws.")
@columns_option
@console_options
def create_command(  # the options of the command
    name: str,
    files: tuple[str, ...],
    kind: str,
    labels: tuple[str, ...],
    job: str | None,
    random_share: float,
    overlap_share: float,
    seed: int,
    columns: dict[str, str],
    console: Console,
) -> int:
    """Create a labeling project from records with or without answers.

    The records are copied into CLOUDFT_HOME/labels. Label them on the page Label of `cloudft ui`.
    """
    from cloudft.labeling.project import create_project
    from cloudft.labeling.settings import ProjectSettings
    from cloudft.storage.documents import convert
    from cloudft.storage.store import Store

    home = Home.from_environ()
    values = {
        "name": name,
        "files": list(files),
        "kind": kind,
        "labels": list(labels),
        "columns": columns,
        "job": Store(home.jobs).find_by_reference(job).id if job else None,
        "seed": seed,
        "randomShare": random_share,
        "overlapShare": overlap_share,
    }
    project = create_project(home.labels, convert(values, ProjectSettings, file="options"))
    found = {
        "project": project.name,
        "records": len(project.records.keys),
        "kind": kind,
        "labels": list(project.settings.labels),
    }
    text = f"{project.name}: {len(project.records.keys)} records; label them in `cloudft ui`"
    if project.settings.labels:
        text += f"\nlabels: {', '.join(project.settings.labels)}"
    console.print_result(found, text)
    return 0
