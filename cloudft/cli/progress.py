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


@contextlib.contextmanager
def sending(console: Console) -> Iterator[Callable[[int], None]]:
    """A callback for bytes that have been sent; after two seconds it says how many."""
    began = said = time.monotonic()
    total = 0

    def sent(size: int) -> None:
        nonlocal said, total
        total += size
        now = time.monotonic()
        if console.verbosity >= 0 and now - began > 2 and now - said > 1:
            said = now
            click.echo(f"\r{total / 1e6:,.0f} MB sent", nl=not sys.stderr.isatty(), err=True)

    try:
        yield sent
    finally:
        if said > began and sys.stderr.isatty():
            click.echo(err=True)
