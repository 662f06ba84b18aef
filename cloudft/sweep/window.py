"""Run several trials at once, and give them back in the order in which they were started.

So what is known when a trial is chosen does not depend on which of two happens to be faster: of
`size` trials at once, those up to `size` numbers before it. A sweep that is continued chooses as
one that was never interrupted.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from cloudft.sweep.records import TrialRecord
from cloudft.sweep.trial_job import TrialRun


@dataclass
class Entry:
    """A trial in the window. `run` is None for one that waits for the score of an earlier one.

    `keep` writes down how it ended.
    """

    record: TrialRecord
    run: TrialRun | None
    keep: Callable[[TrialRecord], None]
    has_ended: bool = False


@dataclass
class TrialWindow:
    """The trials that run now, in their order."""

    size: int
    sleep: Callable[[float], None] = time.sleep
    entries: deque[Entry] = field(default_factory=deque)

    @property
    def is_full(self) -> bool:
        """Return whether no further trial may be started."""
        return len(self.entries) >= self.size

    @property
    def records(self) -> list[TrialRecord]:
        """Return the trials that run, in their order."""
        return [one.record for one in self.entries if one.run is not None]

    def start(self, entry: Entry, *, first: bool = False) -> None:
        """Start a trial beside those that run: after them, or as the `first`."""
        if first:
            self.entries.appendleft(entry)
        else:
            self.entries.append(entry)
        if entry.run is not None:
            entry.run.start()

    def pop(self) -> Entry:
        """Wait until the first of the trials has ended, and return it."""
        first = self.entries[0]
        while first.run is not None and not first.has_ended:
            running = list(self._running())
            for entry, run in running:
                entry.has_ended = run.poll(len(running))
            if not first.has_ended:
                self.sleep(min(run.poll_seconds for _, run in running))
        if first.run is not None:
            first.run.end()
        return self.entries.popleft()

    def stop(self) -> list[TrialRecord]:
        """Stop all of them where they can be continued; return those that were started."""
        for entry in self.entries:
            if entry.run is not None and not entry.has_ended:
                entry.run.stop()
        return self.records

    def _running(self) -> Iterator[tuple[Entry, TrialRun]]:
        for entry in self.entries:
            if entry.run is not None and not entry.has_ended:
                yield entry, entry.run
