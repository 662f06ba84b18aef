"""Show a job's progress: a bar on a terminal, elsewhere a line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import click

from cloudft.cli.number_format import format_duration
from cloudft.cli.options import Console
from cloudft.types import JobState

LINE_INTERVAL_S = 10.0
"""Seconds between two lines that differ only in the step."""


def show_progress(states: Iterator[JobState], console: Console) -> JobState:
    """Show each state as it comes, and return the last one."""
    if console.verbosity < 0:
        return _consume(states, lambda state: None)
    if sys.stderr.isatty():
        return _show_bar(states)
    return _consume(states, _LinePrinter())


def _consume(states: Iterator[JobState], each: Callable[[JobState], None]) -> JobState:
    state = None
    for state in states:
        each(state)
    assert state is not None
    return state


class _LinePrinter:
    """Print a line when status or activity changes, and now and then for steps."""

    def __init__(self) -> None:
        self.last_status: object = None
        self.last_step = -1
        self.printed_at = 0.0

    def __call__(self, state: JobState) -> None:
        progress = state.progress
        where = (progress.activity, progress.epoch) if progress else current_phase(state)
        what = (state.status, where)
        step = progress.step if progress else -1
        due = step != self.last_step and time.monotonic() - self.printed_at >= LINE_INTERVAL_S
        if what != self.last_status or due:
            click.echo(status_line(state), err=True)
            self.last_status, self.last_step, self.printed_at = what, step, time.monotonic()


def status_line(state: JobState) -> str:
    """Return a state as one line."""
    progress = state.progress
    if state.status == "Failed":
        return f"{state.id}: {state.status}"
    if progress is None:
        return ", ".join([f"{state.id}: {state.status}", *_elapsed_parts(state)])
    parts = [f"{state.id}: {state.status}"]
    if not state.has_ended:
        parts.append(progress.activity)
    if not progress.total_steps:  # a teacher answers before the first step
        return ", ".join([*parts, *_elapsed_parts(state)])
    parts.append(f"step {progress.step}/{progress.total_steps}")
    if progress.reward is not None:
        parts.append(f"reward {progress.reward:.4f}")
    elif progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second:
        parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
    if not state.has_ended:
        parts.append(f"{format_duration(progress.seconds_left)} left")
    return ", ".join(parts)


def current_phase(state: JobState) -> str | None:
    """Return the phase that is in progress, for backends that report no steps."""
    details = vars(state.status_details)
    name = next((name for name, status in details.items() if status == "InProgress"), None)
    return name and name.removesuffix("_details").replace("_", " ")


def _elapsed_parts(state: JobState) -> list[str]:
    """Return the phase of a job without steps, its time so far, and what such jobs usually take."""
    if state.has_ended:
        return []
    created = datetime.fromisoformat(state.created_at)
    elapsed = max(0.0, (datetime.now(timezone.utc) - created).total_seconds())
    queued = "queued in the account" if state.summary.get("queuedIn") else None
    parts = [text for text in (current_phase(state) or queued,) if text] + [
        f"{format_duration(elapsed)} so far"
    ]
    usual = state.summary.get("usualSeconds")
    return [*parts, f"such jobs took {format_duration(usual)}"] if usual else parts


def _show_bar(states: Iterator[JobState]) -> JobState:
    from rich.console import Console as RichConsole
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

    columns = (
        SpinnerColumn(finished_text=" "),
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        TextColumn("{task.fields[numbers]}"),
    )
    with Progress(*columns, console=RichConsole(stderr=True), expand=True) as bar:
        task = bar.add_task("starting", total=None, numbers="")

        def update(state: JobState) -> None:
            progress = state.progress
            bar.update(
                task,
                description=state.status if state.has_ended or not progress else progress.activity,
                total=(progress.total_steps or None) if progress else None,
                completed=progress.step if progress else 0,
                numbers=_bar_numbers(state),
            )

        return _consume(states, update)


def _bar_numbers(state: JobState) -> str:
    progress = state.progress
    if progress is None or not progress.total_steps:
        return "  ".join(_elapsed_parts(state))
    parts = [f"{progress.step}/{progress.total_steps}", f"epoch {progress.epoch + 1}"]
    if progress.reward is not None:
        parts.append(f"reward {progress.reward:.4f}")
    elif progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second:
        parts.append(f"{progress.tokens_per_second:.0f} tok/s")
    if not state.has_ended:
        parts.append(f"{format_duration(progress.seconds_left)} left")
    return "  ".join(parts)
