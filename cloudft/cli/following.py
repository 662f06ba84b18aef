"""A job's progress: a bar on a terminal, one line a change where output is piped."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone

import click

from cloudft.cli.options import Console
from cloudft.cli.render import duration
from cloudft.types import JobState

EVERY_S = 10.0
"""Where output is piped, steps alone give a line at most this often."""


def show(states: Iterator[JobState], console: Console) -> JobState:
    """Show each state as it comes; returns the last one."""
    if console.verbosity < 0:
        return _last(states, lambda state: None)
    if sys.stderr.isatty():
        return _bar(states)
    return _last(states, _Lines())


def _last(states: Iterator[JobState], each: Callable[[JobState], None]) -> JobState:
    state = None
    for state in states:
        each(state)
    assert state is not None
    return state


class _Lines:
    """One line a change."""

    def __init__(self) -> None:
        self.said: object = None
        self.step = -1
        self.at = 0.0

    def __call__(self, state: JobState) -> None:
        progress = state.progress
        where = (progress.activity, progress.epoch) if progress else phase(state)
        what = (state.status, where)
        step = progress.step if progress else -1
        due = step != self.step and time.monotonic() - self.at >= EVERY_S
        if what != self.said or due:
            click.echo(line(state), err=True)
            self.said, self.step, self.at = what, step, time.monotonic()


def line(state: JobState) -> str:
    """A state in one line."""
    progress = state.progress
    if state.status == "Failed":
        return f"{state.id}: {state.status}"
    if progress is None:
        return ", ".join([f"{state.id}: {state.status}", *_waiting(state)])
    parts = [f"{state.id}: {state.status}", f"step {progress.step}/{progress.total_steps}"]
    if not state.ended:
        parts.insert(1, progress.activity)
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second:
        parts.append(f"{progress.tokens_per_second:.0f} tokens/s")
    if not state.ended:
        parts.append(f"{duration(progress.seconds_left)} left")
    return ", ".join(parts)


def phase(state: JobState) -> str | None:
    """The phase that goes on: what a backend tells that tells no steps."""
    details = vars(state.status_details)
    name = next((name for name, word in details.items() if word == "InProgress"), None)
    return name and name.removesuffix("_details").replace("_", " ")


def _waiting(state: JobState) -> list[str]:
    """Where a job without steps is, how long it has run, and how long such jobs take."""
    if state.ended:
        return []
    began = datetime.fromisoformat(state.created_at)
    since = max(0.0, (datetime.now(timezone.utc) - began).total_seconds())
    queued = "queued in the account" if state.summary.get("queuedIn") else None
    parts = [word for word in (phase(state) or queued,) if word] + [f"{duration(since)} so far"]
    usual = state.summary.get("usualSeconds")
    return [*parts, f"such jobs took {duration(usual)}"] if usual else parts


def _bar(states: Iterator[JobState]) -> JobState:
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
                description=state.status if state.ended or not progress else progress.activity,
                total=progress.total_steps if progress else None,
                completed=progress.step if progress else 0,
                numbers=_numbers(state),
            )

        return _last(states, update)


def _numbers(state: JobState) -> str:
    progress = state.progress
    if progress is None:
        return "  ".join(_waiting(state))
    parts = [f"{progress.step}/{progress.total_steps}", f"epoch {progress.epoch + 1}"]
    if progress.loss is not None:
        parts.append(f"loss {progress.loss:.4f}")
    if progress.tokens_per_second:
        parts.append(f"{progress.tokens_per_second:.0f} tok/s")
    if not state.ended:
        parts.append(f"{duration(progress.seconds_left)} left")
    return "  ".join(parts)
