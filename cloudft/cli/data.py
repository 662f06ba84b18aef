"""`cloudft data`: the group of what looks at data and prepares it, a file a command or two."""

from __future__ import annotations

import click

from cloudft.cli.lazy import LazyGroup

COMMANDS: dict[str, tuple[str, str]] = {}
"""Command -> (module, one line of help)."""

EPILOG = """\b
Examples:
  cloudft data split tickets.jsonl --validation 0.1
  cloudft data stats
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
