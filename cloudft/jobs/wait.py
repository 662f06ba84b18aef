"""Looking at a job again and again until it ends, in spite of what passes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator

from cloudft.backends.base import Backend
from cloudft.errors import (
    ClockSkewed,
    CloudftError,
    CloudUnreachable,
    CredentialsExpired,
    WaitTimeout,
)
from cloudft.types import JobState

BACKOFF_FACTOR = 1.3
"""How much longer the next wait is when a look has shown nothing new."""


def poll_until_ended(
    describe: Callable[[], JobState],
    *,
    timeout: float | None = None,
    poll: float = 30.0,
    max_poll: float | None = None,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[JobState]:
    """One look each `poll` seconds until the job has ended. Raises WaitTimeout after `timeout`.

    While nothing changes the looks become rarer, down to one in `longest` seconds.
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
                f"{state.id} is still {state.status}; it goes on",
                fix=f"`cloudft watch {state.id}` follows it, `cloudft stop {state.id}` ends it.",
            )
        sleep(poll if end is None else min(poll, max(0.0, end - clock())))


def tolerating_outages(
    describe: Callable[[], JobState],
    on_outage: Callable[[CloudftError], None],
    last_state: JobState | None = None,
) -> Callable[[], JobState]:
    """A look that outlasts expired credentials, a wrong clock and a broken network.

    It gives the last state then. `say` is told each trouble once. Without a state that is `known`,
    the first look must succeed.
    """
    last = [last_state] if last_state is not None else []
    told: set[type[CloudftError]] = set()

    def look() -> JobState:
        try:
            last[:] = [describe()]
            told.clear()
        except (CredentialsExpired, ClockSkewed, CloudUnreachable) as error:
            if not last:
                raise
            if type(error) not in told:
                on_outage(error)
                told.add(type(error))
        return last[0]

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
    """The state in which the job ended. Raises WaitTimeout; the job goes on."""
    states = poll_until_ended(
        lambda: backend.describe(job_id), timeout=timeout, poll=poll, sleep=sleep, clock=clock
    )
    return deque(states, maxlen=1)[0]
