"""`python -m cloudft.tracking JOB TRACKER`: feed one tracker of one job, by a process of its own.

This process holds the tracker's lock and starts another one that loads the tracker's library. That
one ends when the tracker fails or does not answer, with whatever its library has left: threads,
locks, open runs. After a pause the next one takes its place.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence

from cloudft.storage.atomic_files import try_lock
from cloudft.storage.home import Home
from cloudft.storage.store import Store, utc_now
from cloudft.storage.tracking_files import TRACKERS, TrackerState, TrackingFolder

PATIENCE_S = 60.0
"""A tracker that does not answer for so long is given up, and called again by a new process."""
LOADING_PATIENCE_S = 300.0
"""Importing a tracker's library on a busy machine, at a low priority."""
WAIT_FOR_LOCK_S = 30.0
"""A process that is about to end: the next one takes its place."""
PAUSE_S, LONGEST_PAUSE_S = 5.0, 300.0
"""The pause after a failure is doubled each time."""
NICE = 10
"""The trainer's steps come first. Not the lowest priority: beside a trainer on all cores, importing
a library took minutes."""
FED, GIVEN_UP, RETRY = 0, 3, 75
MAX_CRASHES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed a tracker. Return 0 when it has all of the ended job."""
    options = _parser().parse_args(arguments)
    folder = TrackingFolder(Home.from_environ().jobs / options.job)
    if options.once:
        return _feed(options, folder)
    os.nice(options.nice)
    lock = try_lock(folder.lock_path(options.tracker), timeout_s=WAIT_FOR_LOCK_S)
    if lock is None:  # another one feeds it
        return FED
    return _supervise(options, folder, lock)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m cloudft.tracking")
    parser.add_argument("job")
    parser.add_argument("tracker", choices=TRACKERS)
    parser.add_argument("--patience", type=float, default=PATIENCE_S)
    parser.add_argument("--pause", type=float, default=PAUSE_S)
    parser.add_argument("--nice", type=int, default=NICE)
    parser.add_argument("--once", action="store_true")
    parser.add_argument("--attempt", type=int, default=0)
    return parser


def _supervise(options: argparse.Namespace, folder: TrackingFolder, lock: int) -> int:
    """Start processes until one has fed the tracker or gives up. Return the exit code."""
    crashes = 0
    for attempt in range(sys.maxsize):
        command = [sys.executable, "-m", "cloudft.tracking", options.job, options.tracker]
        command += ["--once", f"--attempt={attempt}", f"--patience={options.patience}"]
        # The lock belongs to both: while one of them lives, the tracker is being fed.
        code = subprocess.run(command, stdin=subprocess.DEVNULL, pass_fds=(lock,)).returncode
        if code in (FED, GIVEN_UP):
            return code
        crashes = 0 if code == RETRY else crashes + 1
        if crashes == MAX_CRASHES:
            what = f"the process that feeds it ended by itself, with exit code {code}"
            fix = f"see {folder.log_path(options.tracker)}"
            state = folder.load_state(options.tracker) or TrackerState("failed", utc_now())
            state.status, state.message, state.fix = "failed", what, fix
            folder.save_state(options.tracker, state)
            return GIVEN_UP
        time.sleep(min(options.pause * 2.0 ** min(attempt, 20), LONGEST_PAUSE_S))
    raise AssertionError("unreachable")


class Watchdog:
    """Calls `on_silence` when a call of the tracker is not answered within the patience."""

    def __init__(self, patience_s: float, on_silence: Callable[[], None]) -> None:
        self.patience_s, self._on_silence = patience_s, on_silence
        self._deadline: float | None = None
        threading.Thread(target=self._watch, daemon=True).start()

    def beat(self, what: str) -> None:
        """Note that a call begins; with an empty text, that none is waited for."""
        patience = max(LOADING_PATIENCE_S, self.patience_s) if what == "load" else self.patience_s
        self._deadline = time.monotonic() + patience if what else None

    def _watch(self) -> None:
        while True:
            time.sleep(0.2)
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self._on_silence()
                return


def _feed(options: argparse.Namespace, folder: TrackingFolder) -> int:
    """Feed the tracker in this process. Return the exit code for the one that started it."""
    from cloudft.jobs.lifecycle import backend_for
    from cloudft.tracking.feed import Feeder
    from cloudft.tracking.sink import TrackerFailed
    from cloudft.tracking.sinks import make_sink

    home = Home.from_environ()
    record = Store(home.jobs).get(options.job)
    settings = folder.load_settings()[options.tracker]
    known = folder.load_state(options.tracker) if options.attempt else None

    def on_silence() -> None:
        why = f"has not answered within {options.patience:g} s"
        feeder.note_failure(TrackerFailed(why, fix="check its server and the network to it"))
        os._exit(RETRY if feeder.should_retry else GIVEN_UP)

    watchdog = Watchdog(options.patience, on_silence)
    feeder = Feeder(
        record=record,
        backend=backend_for(record, home),
        tracker=options.tracker,
        make_sink=lambda: make_sink(options.tracker, settings, folder.path),
        heartbeat=watchdog.beat,
        state=known or TrackerState("feeding", utc_now()),
    )
    if feeder.run():
        return FED
    return RETRY if feeder.should_retry else GIVEN_UP


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # Without the exit handlers of a library that failed, or that waits for its threads: all that a
    # tracker has was confirmed.
    os._exit(code)
