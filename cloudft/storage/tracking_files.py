"""What a job's folder keeps of its experiment trackers.

tracking/settings.json     the section `tracking` of the newest submit that had one
tracking/TRACKER.json      how far the tracker was fed, or why it could not be
tracking/TRACKER.lock      held while a process feeds the tracker
tracking/TRACKER.log       what the tracker's library prints; of the newest process
tracking/TRACKER.sent      what only this machine knows of the values sent (wandb)
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import orjson

from cloudft.errors import BadDocument
from cloudft.storage.atomic_files import as_store_error, atomic_write, is_locked
from cloudft.storage.documents import Count, decode
from cloudft.storage.store import read_job_document, utc_now

FOLDER = "tracking"
SETTINGS_FILE = "settings.json"
TRACKERS = ("mlflow", "tensorboard", "wandb", "trackio")
VERSION = 1
SLOW_AFTER_S = 20.0
"""A tracker that has not answered for so long is shown as slow."""


class TrackerState(msgspec.Struct, rename="camel"):
    """How far one tracker was fed.

    `status` is `waiting` until a job on AWS has ended, `feeding` while a process works on it, `fed`
    when it has all of an ended job, and `failed` with the reason in `message`. `job_status` and
    `evaluated_at` are those of the job and of the evaluation that the tracker has. `waiting_since`
    is when the call began that the tracker has not answered yet.
    """

    status: Literal["waiting", "feeding", "fed", "failed"]
    updated_at: str
    points: Count = 0
    url: str | None = None
    message: str | None = None
    fix: str | None = None
    job_status: str | None = None
    evaluated_at: str | None = None
    waiting_since: str | None = None
    not_finite: dict[str, int] = {}
    """How many values of a curve were NaN or infinite, and so not sent."""
    attempt: Count = 0
    version: int = VERSION


class _Settings(msgspec.Struct):
    trackers: dict[str, dict[str, Any]]


class TrackingFolder:
    """The folder `tracking` of one job."""

    def __init__(self, job_folder: Path) -> None:
        self.path = job_folder / FOLDER

    def save_settings(self, trackers: Mapping[str, Mapping[str, Any]]) -> None:
        """Write which trackers the job has. Raise StoreError."""
        with as_store_error("the trackers can't be saved", self.path):
            self.path.mkdir(mode=0o700, exist_ok=True)
            content = {"version": VERSION, "trackers": trackers}
            atomic_write(self.path / SETTINGS_FILE, orjson.dumps(content))

    def load_settings(self) -> dict[str, dict[str, Any]]:
        """Return the settings by tracker; empty for a job without trackers. Raise DamagedJob."""
        found = read_job_document(self.path / SETTINGS_FILE, _Settings)
        known = {} if found is None else found.trackers
        return {name: known[name] for name in TRACKERS if name in known}

    def lock_path(self, tracker: str) -> Path:
        """Return the file that the process of a tracker locks."""
        return self.path / f"{tracker}.lock"

    def log_path(self, tracker: str) -> Path:
        """Return the log of a tracker's process."""
        return self.path / f"{tracker}.log"

    def is_being_fed(self, tracker: str) -> bool:
        """Return whether a living process feeds the tracker."""
        return is_locked(self.lock_path(tracker))

    def save_state(self, tracker: str, state: TrackerState) -> None:
        """Replace a tracker's state. Raise OSError.

        Not durable: it is written often, beside a trainer, and after a power cut the tracker says.
        """
        state.updated_at = utc_now()
        temporary = self.path / f".{tracker}.json.{os.getpid()}"
        temporary.write_bytes(msgspec.json.encode(state))
        os.replace(temporary, self.path / f"{tracker}.json")

    def load_state(self, tracker: str) -> TrackerState | None:
        """Return a tracker's state; None where there is none, or none that can be read."""
        path = self.path / f"{tracker}.json"
        try:
            return decode(path.read_bytes(), TrackerState, file=path, versions=(VERSION,))
        except (BadDocument, OSError):  # it only says what to show: the tracker itself is asked
            return None


def describe_trackers(job_folder: Path) -> dict[str, str]:
    """Return a sentence on each tracker of a job, by tracker. Raise DamagedJob."""
    folder = TrackingFolder(job_folder)
    job = job_folder.name
    return {
        name: _describe(folder.load_state(name), folder.is_being_fed(name), job)
        for name in folder.load_settings()
    }


def _describe(state: TrackerState | None, is_running: bool, job: str) -> str:
    again = f"`cloudft track {job}` sends everything again"
    if state is None:
        return "starting" if is_running else f"nothing was sent: {again}"
    at = f" at {state.url}" if state.url else ""
    left_out = "".join(
        f"; {count} values of {name} are NaN or infinite and were left out"
        for name, count in state.not_finite.items()
    )
    if state.status == "waiting":
        return "gets the curve when the job has ended"
    if state.status == "failed":
        return f"{state.message} (fix: {state.fix}; then {again})"
    waited = _seconds_since(state.waiting_since)
    if is_running and waited is not None and waited > SLOW_AFTER_S:
        return f"has not answered for {waited:.0f} s; the job is not affected"
    if is_running and state.message:
        return f"{state.message}; it is tried again (fix: {state.fix})"
    if state.status == "fed" or is_running:
        return f"{state.points} values{at}{left_out}"
    return f"its process is gone after {state.points} values: {again}"


def _seconds_since(moment: str | None) -> float | None:
    if moment is None:
        return None
    try:
        return time.time() - datetime.fromisoformat(moment).timestamp()
    except ValueError:
        return None
