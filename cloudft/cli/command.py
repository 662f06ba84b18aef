"""The click classes of cloudft's commands: help in two sections, and flags with old spellings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click


class Command(click.Command):
    """A command whose help lists the AWS options in a section of their own."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options, then those of AWS."""
        for title, are_aws in (("Options", False), ("AWS options", True)):
            records = [
                record
                for param in self.get_params(ctx)
                if isinstance(param, AwsOption) == are_aws
                and (record := param.get_help_record(ctx)) is not None
            ]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def command(name: str, *, epilog: str) -> Callable[[Callable[..., object]], Command]:
    """Return the decorator that makes a function the command `name`."""
    return click.command(name, cls=Command, epilog=epilog)


class AwsOption(click.Option):
    """An option that says where AWS is, and as whom to call it."""


class RenamedOption(click.Option):
    """An option that still takes its earlier spellings, which help and completion do not show."""

    def __init__(self, *args: Any, old_names: Sequence[str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.old_names = old_names

    def add_to_parser(self, parser: Any, ctx: click.Context) -> None:
        """Add the option to the parser under all of its names."""
        # `opts` is also what help prints: the old names are in it only while the parser takes them.
        shown = self.opts
        self.opts = [*shown, *self.old_names]
        try:
            super().add_to_parser(parser, ctx)
        finally:
            self.opts = shown
