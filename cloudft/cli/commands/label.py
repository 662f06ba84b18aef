"""label: the group of commands around labeling projects. One file a command: label_NAME.py."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import lazy_group

SECTIONS: dict[str, dict[str, str]] = {
    "Commands": {
        "create": "Create a project from files of records.",
        "status": "Show what is labeled, the agreement, and what a label costs.",
        "export": "Write the labeled records as a job's data.",
    }
}
"""Section of the help page -> command -> one line of help."""

EPILOG = """\b
Examples:
  cloudft label create tickets tickets.jsonl --job ticket-router
  cloudft ui
  cloudft label export tickets --out labeled.jsonl
"""


@click.group(
    "label",
    cls=lazy_group(SECTIONS, "cloudft.cli.commands.label_"),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def label_command() -> None:
    """Label records by keyboard, the most informative first: on the page Label of `cloudft ui`.

    These commands create a project, show its state, and write its labels.
    """
