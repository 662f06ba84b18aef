"""Poll a job until it ends, tolerating temporary outages."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime

from cloudft.backends.base import Backend
from cloudft.errors import (
    ClockSkewed,
    CloudftError,
    CloudUnreachable,
    CredentialsExpired,
    WaitTimeout,
)
from cloudft.types import TRAINING_BEGAN, JobState, StatusDetails

BACKOFF_FACTOR = 1.3
"""The interval grows by this factor while a job does not change."""
TEMPORARY_OUTAGES = (CredentialsExpired, ClockSkewed, CloudUnreachable)
"""Errors after which the next poll may succeed."""


def poll_until_ended(
    describe: Callable[[], JobState],
    *,
    timeout: float | None = None,
    poll: float = 30.0,
    max_poll: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[JobState]:
    """Yield the job's state every `poll` seconds until the job has ended.

    While nothing changes, the interval grows up to `max_poll` seconds. Raise WaitTimeout after
    `timeout`; the job keeps running.
    """
    end = None if timeout is None else clock() + timeout
    shortest, last = poll, None
    while True:
        state = describe()
        yield state
        unchanged = last is not None and state == last
        poll = min(max(shortest, max_poll or 0.0), poll * BACKOFF_FACTOR) if unchanged else shortest
        last = state
        if state.has_ended:
            return
        if end is not None and clock() >= end:
            raise WaitTimeout(
                f"{state.id} is still {state.status}; it keeps running",
                fix=f"`cloudft watch {state.id}` follows it, `cloudft stop {state.id}` ends it.",
            )
        sleep(poll if end is None else min(poll, max(0.0, end - clock())))


def tolerating_outages(
    describe: Callable[[], JobState],
    on_outage: Callable[[CloudftError], None],
    last_state: JobState | None = None,
) -> Callable[[], JobState]:
    """Return a function that polls like `describe` and survives temporary outages.

    Expired credentials, a wrong clock and a broken network return the last state; `on_outage` is
    called once for each kind of error, until a poll succeeds. Without a `last_state`, the first
    poll must succeed.
    """
    last = [last_state] if last_state is not None else []
    reported: set[type[CloudftError]] = set()

    def look() -> JobState:
        try:
            last[:] = [describe()]
            reported.clear()
        except TEMPORARY_OUTAGES as error:
            if not last:
                raise
            if type(error) not in reported:
                on_outage(error)
                reported.add(type(error))
        return last[0]

    return look


def stopping_after(
    describe: Callable[[], JobState],
    stop: Callable[[str], None],
    seconds: float,
    now: Callable[[], float] = time.time,
    on_outage: Callable[[CloudftError], None] = lambda error: None,
) -> Callable[[], JobState]:
    """Return a function that polls like `describe` and stops the job after `seconds` of training.

    `stop` gets the job's id, once; after a temporary outage, which `on_outage` is called for, the
    next poll tries again: without a watcher the job would run on. Where the backend does not say
    when training began, the time is counted from the job's creation, so that the bound holds.
    """
    is_stopped = False

    def look() -> JobState:
        nonlocal is_stopped
        state = describe()
        if is_stopped or state.status != "InProgress" or state.summary.get("queuedIn"):
            return state
        began = state.summary.get(TRAINING_BEGAN)
        if began is None and state.status_details != StatusDetails():
            return state  # an earlier phase, which is not billed
        begun = datetime.fromisoformat(str(began or state.created_at)).timestamp()
        if now() - begun >= seconds:
            try:
                stop(state.id)
            except TEMPORARY_OUTAGES as error:
                on_outage(error)
                return state
            is_stopped = True
            return describe()
        return state

    return look


def wait(
    backend: Backend,
    job_id: str,
    *,
    timeout: float | None = None,
    poll: float = 30.0,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> JobState:
    """Return the state in which the job ended. Raise WaitTimeout; the job keeps running."""
    states = poll_until_ended(
        lambda: backend.describe(job_id), timeout=timeout, poll=poll, sleep=sleep, clock=clock
    )
    return deque(states, maxlen=1)[0]
