"""A click group that imports a command when it is called, and lists its commands in sections."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from importlib import import_module

import click

Sections = Mapping[str, Mapping[str, str]]
"""Title of a help section -> command -> one line of help."""


class LazyGroup(click.Group):
    """A group whose help is written from a table, without importing a command.

    The command NAME of a group with the prefix P is the click command `NAME_command` in the module
    `P` + NAME, with "_" for "-"; a Python keyword as a name gets a "_" (`import_`).
    """

    sections: Sections
    module_prefix: str

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands, in the order of the help page."""
        return list(self.modules())

    def modules(self) -> dict[str, str]:
        """Return command -> dotted name of its module."""
        names = [name for commands in self.sections.values() for name in commands]
        return {name: self.module_prefix + _module_name(name) for name in names}

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import the module of `cmd_name` and return its command; None for an unknown name."""
        module = self.modules().get(cmd_name)
        if module is None:
            return None
        command: click.Command = getattr(
            import_module(module), f"{_attribute_name(cmd_name)}_command"
        )
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Resolve as click does. Raise UsageError with the nearest name for an unknown command."""
        names = self.list_commands(ctx)
        if args and args[0] not in names and not args[0].startswith("-"):
            import difflib

            nearest = difflib.get_close_matches(args[0], names, n=1)
            hint = f" Did you mean '{nearest[0]}'?" if nearest else ""
            raise click.UsageError(f"there is no command '{args[0]}'.{hint}", ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands by section. No module is imported for it."""
        # One width for all sections, so that the descriptions are aligned over the whole page.
        width = max(len(name) for name in self.list_commands(ctx))
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])


def lazy_group(sections: Sections, module_prefix: str) -> type[LazyGroup]:
    """Return a LazyGroup class with these sections: what `click.group(cls=...)` takes."""
    attributes = {"sections": sections, "module_prefix": module_prefix}
    return type("LazyGroup", (LazyGroup,), attributes)


def _attribute_name(name: str) -> str:
    return name.replace("-", "_")


def _module_name(name: str) -> str:
    name = _attribute_name(name)
    return f"{name}_" if keyword.iskeyword(name) else name
