"""`cloudft data`: the group of what looks at data and prepares it, a file a command or two."""

from __future__ import annotations

import click

from cloudft.cli.lazy_group import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {
    "stats": (
        "cloudft.cli.commands.data_stats",
        "Count records, tokens, labels, twins, contradictions.",
    ),
    "preview": ("cloudft.cli.commands.data_preview", "Show a record as the model will see it."),
    "report": ("cloudft.cli.commands.data_report", "Write a page with pictures, for a review."),
    "convert": (
        "cloudft.cli.commands.data_convert",
        "Write records of any accepted shape in another one.",
    ),
    "split": ("cloudft.cli.commands.data_convert", "Hold out shares of the records."),
    "mix": ("cloudft.cli.commands.data_convert", "Spread general records among your own."),
    "dedupe": ("cloudft.cli.commands.data_convert", "Keep the first of all like records."),
    "scan": (
        "cloudft.cli.commands.data_scan",
        "Find secrets and personal data, and take them out.",
    ),
    "leakage": (
        "cloudft.cli.commands.data_leakage",
        "Find held-out records that the training set has too.",
    ),
}
"""Command -> (module, one line of help)."""

EPILOG = """\b
Examples:
  cloudft data split tickets.jsonl --validation 0.1 --out parts
  cloudft data dedupe tickets.jsonl --near 0.8 --out unique.jsonl
"""


@click.group(
    "data",
    cls=LazyGroup,
    table=COMMANDS,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"]},
)
def data_command() -> None:
    """Look at data and prepare it, a step at a time.

    Files are read in any shape that a job file takes; nothing of yours is ever overwritten.
    """
