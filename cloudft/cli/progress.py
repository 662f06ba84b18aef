"""Show progress on stderr: records read, bytes copied, requests answered.

Nothing is shown in the first two seconds, and nothing with -q.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import click

from cloudft.backends.observer import RunObserver
from cloudft.cli.options import Console
from cloudft.errors import QuotaExceeded
from cloudft.types import Estimate

if TYPE_CHECKING:
    from rich.progress import TaskID

DELAY_S = 2.0
"""Seconds before a counter appears."""
LINE_INTERVAL_S = 5.0
"""Seconds between two lines of a counter when stderr is not a terminal."""
REDRAW_INTERVAL_S = 0.2
"""Seconds between two updates of a counter on a terminal."""


@contextlib.contextmanager
def record_counter(console: Console, what: str = "reading") -> Iterator[Callable[[int], None]]:
    """Yield a callback that takes the number of records processed so far.

    After two seconds a terminal shows a counter `WHAT: N records`, which goes at the end; a pipe
    gets a line every five seconds.
    """
    is_terminal = sys.stderr.isatty()
    interval = REDRAW_INTERVAL_S if is_terminal else LINE_INTERVAL_S
    started = time.monotonic()
    printed_at = -LINE_INTERVAL_S

    def progress(records: int) -> None:
        nonlocal printed_at
        if console.verbosity < 0:
            return
        now = time.monotonic()
        if now - started > DELAY_S and now - printed_at > interval:
            printed_at = now
            text = f"{what}: {records:,} records"
            click.echo(f"\r{text}" if is_terminal else text, err=True, nl=not is_terminal)

    try:
        yield progress
    finally:
        if is_terminal and printed_at > 0:
            click.echo("\r\033[K", err=True, nl=False)


@contextlib.contextmanager
def byte_counter(console: Console, verb: str) -> Iterator[Callable[[int], None]]:
    """Yield a callback for bytes that are done; their sum is printed as `12 MB VERB`."""
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


@contextlib.contextmanager
def note_after_delay(console: Console, text: str) -> Iterator[None]:
    """Print a line if what is done here takes more than two seconds."""
    timer = threading.Timer(DELAY_S, console.note, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


class _TerminalObserver(RunObserver):
    """Shows a run on the terminal, and keeps it queued for a used-up quota with `queue`."""

    def __init__(
        self,
        console: Console,
        on_records_read: Callable[[int], None],
        on_records_rendered: Callable[[int], None],
        on_upload: Callable[[int], None],
        *,
        on_estimate: Callable[[Estimate], None] | None,
        on_progress: Callable[[str, int, int], None] | None,
        queue: bool,
    ) -> None:
        self._console = console
        self._on_records_read = on_records_read
        self._on_records_rendered = on_records_rendered
        self._on_upload = on_upload
        self._on_estimate = on_estimate
        self._on_progress = on_progress
        self._queue = queue
        self._is_queued = False

    def on_records_read(self, count: int) -> None:
        """Show the number of records."""
        self._on_records_read(count)

    def on_records_rendered(self, count: int) -> None:
        """Show the number of records."""
        self._on_records_rendered(count)

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
    with (
        record_counter(console) as read,
        record_counter(console, "rendering") as rendered,
        byte_counter(console, "sent") as sent,
    ):
        yield _TerminalObserver(
            console,
            read,
            rendered,
            sent,
            on_estimate=on_estimate,
            on_progress=on_progress,
            queue=queue,
        )


@contextlib.contextmanager
def removal_counter(console: Console) -> Iterator[Callable[[int], None]]:
    """Yield a callback for deleted object versions; their sum is printed."""
    started = printed_at = time.monotonic()
    total = 0

    def add(count: int) -> None:
        nonlocal printed_at, total
        total += count
        now = time.monotonic()
        if console.verbosity >= 0 and now - started > DELAY_S and now - printed_at > 1:
            printed_at = now
            click.echo(f"{total:,} object versions deleted", err=True)

    yield add


@contextlib.contextmanager
def task_progress(console: Console) -> Iterator[Callable[[str, int, int], None]]:
    """Yield a callback (task, done, total). A terminal shows a bar for each task.

    Elsewhere -v prints one line when a task begins.
    """
    from rich.console import Console as RichConsole
    from rich.progress import Progress

    stderr = RichConsole(stderr=True)
    tasks: dict[str, TaskID] = {}
    with Progress(
        console=stderr, transient=True, disable=console.verbosity < 0 or not stderr.is_terminal
    ) as bar:

        def progress(task: str, done: int, total: int) -> None:
            if task not in tasks:
                tasks[task] = bar.add_task(task, total=total)
                console.debug(f"{task}: {done} of {total} already known")
            bar.update(tasks[task], completed=done)

        yield progress
