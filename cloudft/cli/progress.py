"""How far the reading of data has come, for files that take more than a moment."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator

import click

from cloudft.cli.options import Console

AFTER_S = 2.0


@contextlib.contextmanager
def reading(console: Console, what: str = "reading") -> Iterator[Callable[[int], None]]:
    """Gives a function that takes the number of records read so far, or of what else `what` says.

    On a terminal, a counter appears after two seconds; elsewhere nothing does.
    """
    started = time.monotonic()
    shown = 0.0

    def progress(records: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if visible and now - started > AFTER_S and now - shown > 0.2:
            shown = now
            click.echo(f"\r{what}: {records:,} records", err=True, nl=False)

    visible = sys.stderr.isatty() and console.verbosity >= 0
    try:
        yield progress
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)
