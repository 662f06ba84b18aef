"""List every command of the command line, those within groups included."""

from __future__ import annotations

import click

from cloudft.cli.commands.data import data_command
from cloudft.cli.commands.grader import grader_command
from cloudft.cli.commands.infra import infra_command
from cloudft.cli.commands.label import label_command
from cloudft.cli.lazy_group import LazyGroup
from cloudft.cli.main import cloudft

GROUPS: dict[str, LazyGroup] = {}
for _group in (data_command, grader_command, infra_command, label_command):
    assert isinstance(_group, LazyGroup) and _group.name is not None
    GROUPS[_group.name] = _group
assert isinstance(cloudft, LazyGroup)
COMMAND_PATHS = [(name,) for name in cloudft.modules() if name not in GROUPS] + [
    (group, name) for group, commands in GROUPS.items() for name in commands.modules()
]
"""The words that call each of them."""
MODULES = sorted(
    module for group in (cloudft, *GROUPS.values()) for module in group.modules().values()
)
"""The modules of all commands."""

HELP_OPTIONS = ["-h", "--help"]
"""A command keeps the help option that it creates first (click 8.5): always with these names."""


def find_command(words: tuple[str, ...]) -> click.Command:
    """Return the command that these words call."""
    command: click.Command | None = cloudft
    for word in words:
        assert isinstance(command, click.Group)
        command = command.get_command(click.Context(command), word)
    assert command is not None, f"no command {' '.join(words)}"
    return command


def make_context(words: tuple[str, ...], arguments: list[str]) -> click.Context:
    """Return the context in which the command `words` runs with these arguments."""
    command = find_command(words)
    return command.make_context(words[-1], [*arguments], help_option_names=HELP_OPTIONS)
