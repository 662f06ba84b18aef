"""How far something has come that takes more than a moment: reading, sending, questions, steps."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import click

from cloudft.backends.observer import RunObserver
from cloudft.cli.options import Console
from cloudft.errors import QuotaExceeded
from cloudft.types import Estimate

DELAY_S = 2.0


@contextlib.contextmanager
def record_counter(console: Console, what: str = "reading") -> Iterator[Callable[[int], None]]:
    """Gives a function that takes the number of records read so far, or of what else `what` says.

    On a terminal, a counter appears after two seconds; elsewhere nothing does.
    """
    started = time.monotonic()
    shown = 0.0

    def progress(records: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if visible and now - started > DELAY_S and now - shown > 0.2:
            shown = now
            click.echo(f"\r{what}: {records:,} records", err=True, nl=False)

    visible = sys.stderr.isatty() and console.verbosity >= 0
    try:
        yield progress
    finally:
        if shown:
            click.echo("\r\033[K", err=True, nl=False)


@contextlib.contextmanager
def byte_counter(console: Console, verb: str) -> Iterator[Callable[[int], None]]:
    """Yield a callback for bytes; after two seconds it prints the sum, as `12 MB VERB`."""
    started = printed_at = time.monotonic()
    total = 0

    def add(size: int) -> None:
        nonlocal printed_at, total
        total += size
        now = time.monotonic()
        if console.verbosity >= 0 and now - started > DELAY_S and now - printed_at > 1:
            printed_at = now
            click.echo(f"\r{total / 1e6:,.0f} MB {verb}", nl=not sys.stderr.isatty(), err=True)

    try:
        yield add
    finally:
        if printed_at > started and sys.stderr.isatty():
            click.echo(err=True)


class _TerminalObserver(RunObserver):
    """Shows a run on the terminal, and keeps it queued for a used-up quota with `queue`."""

    def __init__(
        self,
        console: Console,
        on_records_read: Callable[[int], None],
        on_upload: Callable[[int], None],
        *,
        on_estimate: Callable[[Estimate], None] | None,
        on_progress: Callable[[str, int, int], None] | None,
        queue: bool,
    ) -> None:
        self._console = console
        self._on_records_read = on_records_read
        self._on_upload = on_upload
        self._on_estimate = on_estimate
        self._on_progress = on_progress
        self._queue = queue
        self._is_queued = False

    def on_records_read(self, count: int) -> None:
        """Show the number of records."""
        self._on_records_read(count)

    def on_activity(self, message: str) -> None:
        """Print the sentence."""
        self._console.note(message)

    def on_progress(self, activity: str, done: int, total: int) -> None:
        """Show a progress bar where the command has one."""
        if self._on_progress is not None:
            self._on_progress(activity, done, total)

    def on_upload(self, size: int) -> None:
        """Show the number of bytes."""
        self._on_upload(size)

    def on_estimate(self, estimate: Estimate) -> None:
        """Print the estimate where the command does."""
        if self._on_estimate is not None:
            self._on_estimate(estimate)

    def on_quota_exceeded(self, error: QuotaExceeded) -> None:
        """Print once that the job is queued; raise `error` without `queue`."""
        if not self._queue:
            raise error
        if not self._is_queued:
            self._console.note(f"{error.message}\n  queued for quota; Ctrl-C cancels ...")
        self._is_queued = True


@contextlib.contextmanager
def run_observer(
    console: Console,
    *,
    on_estimate: Callable[[Estimate], None] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
    queue: bool = False,
) -> Iterator[RunObserver]:
    """Yield an observer that shows a run on the terminal: records read, bytes sent, its price."""
    with record_counter(console) as count, byte_counter(console, "sent") as sent:
        yield _TerminalObserver(
            console, count, sent, on_estimate=on_estimate, on_progress=on_progress, queue=queue
        )


@contextlib.contextmanager
def removal_counter(console: Console) -> Iterator[Callable[[int], None]]:
    """A callback for versions of objects that are gone; after two seconds it says how many."""
    began = said = time.monotonic()
    total = 0

    def gone(count: int) -> None:
        nonlocal said, total
        total += count
        now = time.monotonic()
        if console.verbosity >= 0 and now - began > DELAY_S and now - said > 1:
            said = now
            click.echo(f"{total:,} versions of objects removed", err=True)

    yield gone


@contextlib.contextmanager
def task_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """A progress bar for each thing that goes on, on a terminal; lines elsewhere, with -v."""
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    shown = RichConsole(stderr=True)
    tasks: dict[str, Any] = {}
    with Progress(
        console=shown, transient=True, disable=console.verbosity < 0 or not shown.is_terminal
    ) as bar:

        def progress(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bar.add_task(what, total=total)
                console.debug(f"{what}: {total - done} to ask, {done} known")
            bar.update(tasks[what], completed=done)

        yield progress
