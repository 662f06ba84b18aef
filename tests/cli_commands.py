"""Every command of the command line, those within groups too."""

from __future__ import annotations

import click

from cloudft.cli.commands.data import COMMANDS as DATA
from cloudft.cli.commands.infra import COMMANDS as INFRA
from cloudft.cli.main import COMMANDS, cloudft

GROUPS = {"data": DATA, "infra": INFRA}
COMMAND_PATHS = [(name,) for name in COMMANDS if name not in GROUPS] + [
    (group, name) for group, table in GROUPS.items() for name in table
]
"""The words that call each of them."""


HELP_OPTIONS = ["-h", "--help"]
"""A command keeps the help option that it makes first (click 8.5): always with these names."""


def find_command(words: tuple[str, ...]) -> click.Command:
    """The command that these words call."""
    command: click.Command | None = cloudft
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None, f"no command {' '.join(words)}"
    return command


def make_context(words: tuple[str, ...], given: list[str]) -> click.Context:
    """The context in which the command that `words` call runs with what is given."""
    return find_command(words).make_context(words[-1], [*given], help_option_names=HELP_OPTIONS)
