"""data: the group of commands that inspect and prepare data. One file a command: data_NAME.py."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import lazy_group

SECTIONS: dict[str, dict[str, str]] = {
    "Inspect": {
        "stats": "Count records, tokens, labels, duplicates and contradictions.",
        "preview": "Show a record as the model sees it.",
        "report": "Write an HTML page with charts of the data.",
        "scan": "Find secrets and personal data, and redact them.",
        "leakage": "Find held-out records that are in the training set.",
    },
    "Write new files": {
        "convert": "Write records in another format.",
        "split": "Hold out records for validation and test.",
        "mix": "Spread general records among your own.",
        "dedupe": "Keep the first of duplicate records.",
    },
}
"""Section of the help page -> command -> one line of help."""

EPILOG = """\b
Examples:
  cloudft data stats tickets.jsonl
  cloudft data split tickets.jsonl --validation 0.1 --out parts
  cloudft data dedupe tickets.jsonl --near 0.8 --out unique.jsonl
"""


@click.group(
    "data",
    cls=lazy_group(SECTIONS, "cloudft.cli.commands.data_"),
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def data_command() -> None:
    """Inspect and prepare data, one step at a time.

    Files are read in every format that a job file takes; existing files are never overwritten.
    """
