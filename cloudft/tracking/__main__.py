"""`python -m cloudft.tracking JOB TRACKER`: the process that feeds one tracker of one job."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from cloudft.storage.home import Home
from cloudft.storage.tracking_files import TRACKERS

PATIENCE_S = 60.0
"""A tracker that does not answer for so long is given up, and called again by a new process."""
LOADING_PATIENCE_S = 300.0
"""Importing a tracker's library on a busy machine, at a low priority."""
NICE = 10
"""The trainer's steps come first."""
WAIT_FOR_LOCK_S = 30.0
"""A feeder that is about to end: the next one takes its place."""


class Watchdog:
    """Ends this process when a call of the tracker is not answered within the patience."""

    def __init__(self, patience_s: float) -> None:
        self.patience_s = patience_s
        self._deadline: float | None = None
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def beat(self, what: str) -> None:
        """Note that a call begins; with an empty text, that none is waited for."""
        patience = max(LOADING_PATIENCE_S, self.patience_s) if what == "load" else self.patience_s
        self._deadline = time.monotonic() + patience if what else None

    def _watch(self) -> None:
        while True:
            time.sleep(0.2)
            deadline = self._deadline
            if deadline is not None and time.monotonic() > deadline:
                self.on_silence()

    def on_silence(self) -> None:
        """Do what is to be done; does not return."""
        os._exit(1)


def main(arguments: Sequence[str] | None = None) -> int:
    """Feed a tracker. Return 0 when it has all of the ended job."""
    parser = argparse.ArgumentParser(prog="python -m cloudft.tracking")
    parser.add_argument("job")
    parser.add_argument("tracker", choices=TRACKERS)
    parser.add_argument("--patience", type=float, default=PATIENCE_S)
    parser.add_argument("--pause", type=float, default=5.0)
    parser.add_argument("--attempt", type=int, default=0)
    parser.add_argument("--nice", type=int, default=NICE)
    options = parser.parse_args(arguments)
    # Not the lowest priority: beside a trainer on all cores, importing a library took minutes.
    os.nice(options.nice)
    return _feed(options)


def _feed(options: argparse.Namespace) -> int:
    from cloudft.jobs.lifecycle import backend_for
    from cloudft.storage.store import Store, utc_now
    from cloudft.storage.tracking_files import TrackerState, TrackingFolder
    from cloudft.tracking.feed import Feeder
    from cloudft.tracking.sink import TrackerFailed
    from cloudft.tracking.sinks import make_sink

    home = Home.from_environ()
    record = Store(home.jobs).get(options.job)
    folder = TrackingFolder(record.folder)
    lock = _take_lock(folder.lock_path(options.tracker))
    if lock is None:
        return 0
    settings = folder.load_settings()[options.tracker]
    watchdog = Watchdog(options.patience)
    feeder = Feeder(
        record=record,
        backend=backend_for(record, home),
        tracker=options.tracker,
        settings=settings,
        make_sink=lambda: make_sink(options.tracker, settings, folder.path),
        heartbeat=watchdog.beat,
        pause_s=options.pause,
        state=TrackerState("feeding", utc_now(), attempt=options.attempt),
    )

    def replace_process() -> None:
        """Note the silence, wait, and put a new process in this one's place: threads that hang
        in the tracker's library end with it.
        """
        why = f"has not answered within {options.patience:g} s"
        error = TrackerFailed(why, fix="check its server and the network to it")
        if not feeder.note_failure(error):
            os._exit(1)
        time.sleep(feeder.pause_after_failure())
        more = ["--patience", options.patience, "--pause", options.pause]
        more += ["--attempt", feeder.state.attempt]
        command = [sys.executable, "-m", "cloudft.tracking", options.job, options.tracker]
        os.execv(sys.executable, [*command, *map(str, more)])

    watchdog.on_silence = replace_process  # type: ignore[method-assign]
    watchdog.start()
    code = 0 if feeder.run() else 1
    sys.stdout.flush()
    watchdog.on_silence = lambda: os._exit(code)  # type: ignore[method-assign]
    watchdog.beat("exit")  # threads of a library that do not end
    return code


def _take_lock(path: Path) -> int | None:
    from cloudft.storage.atomic_files import try_lock

    return try_lock(path, timeout_s=WAIT_FOR_LOCK_S)


if __name__ == "__main__":
    code = main()
    os._exit(code) if code else sys.exit(0)
