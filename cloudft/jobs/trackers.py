"""Start what feeds a job's experiment trackers: one detached process a tracker.

The processes are `python -m cloudft.tracking`. Nothing of a tracker's library is imported here, and
nobody waits for them: a tracker that hangs or fails costs the job nothing.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cloudft.backends.findings import FindingFactory
from cloudft.spec.load import LoadedJob
from cloudft.spec.tracking import TrackingSpec
from cloudft.storage.store import JobRecord
from cloudft.storage.tracking_files import TRACKERS, TrackingFolder
from cloudft.types import Finding, JobState


def check_trackers(job: LoadedJob) -> tuple[Finding, ...]:
    """Warn of trackers whose package is not installed, and of one without an address."""
    if job.spec.tracking is None:
        return ()
    finding, findings = FindingFactory(job), list[Finding]()
    for tracker in _named(job.spec.tracking):
        if find_spec(tracker) is None:
            message = f"{tracker} is not installed: the job runs, and {tracker} gets nothing"
            fix = f"pip install 'cloudft[{tracker}]'"
            findings.append(
                finding("TrackerNotInstalled", f"tracking.{tracker}", message, fix, "warning")
            )
    mlflow = job.spec.tracking.mlflow
    if mlflow is not None and not mlflow.tracking_uri and not os.environ.get("MLFLOW_TRACKING_URI"):
        message = "no address of MLflow is known: the job runs, and MLflow gets nothing"
        fix = "set tracking.mlflow.tracking_uri or MLFLOW_TRACKING_URI"
        findings.append(finding("NoAddress", "tracking.mlflow", message, fix, "warning"))
    return tuple(findings)


def _named(tracking: TrackingSpec) -> list[str]:
    return [name for name in TRACKERS if getattr(tracking, name) is not None]


def begin_tracking(record: JobRecord, job: LoadedJob) -> None:
    """Save the trackers of a submitted job's file, and start to feed them. Raise StoreError.

    Does nothing for a job file without trackers: those of an earlier submit stay.
    """
    if job.spec.tracking is None:
        return
    settings = {name: _settings(job, name) for name in _named(job.spec.tracking)}
    TrackingFolder(record.folder).save_settings(settings)
    start_feeding(record)


def _settings(job: LoadedJob, tracker: str) -> dict[str, Any]:
    """Return a tracker's settings, with what is relative to the job file's folder absolute."""
    values: dict[str, Any] = getattr(job.spec.tracking, tracker).model_dump()
    if tracker == "tensorboard":
        values["dir"] = str(job.base_dir / Path(values["dir"]).expanduser())
    uri = values.get("tracking_uri")
    if uri and ":" not in uri and uri != "databricks":
        values["tracking_uri"] = str(job.base_dir / Path(uri).expanduser())
    return values


def start_feeding(record: JobRecord) -> list[str]:
    """Start a process for each tracker of the job; return the trackers.

    Where one runs already, which may be about to end, the new one waits a while to take its place.
    """
    folder = TrackingFolder(record.folder)
    trackers = list(folder.load_settings())
    for tracker in trackers:
        _start(folder, record, tracker)
    return trackers


def _start(folder: TrackingFolder, record: JobRecord, tracker: str) -> None:
    """Start a detached process that feeds one tracker. It gives way to all others."""
    home = record.folder.parent.parent
    with (
        contextlib.suppress(OSError),
        open(folder.log_path(tracker), "ab", opener=_open_private) as log,
    ):
        child = subprocess.Popen(
            [sys.executable, "-m", "cloudft.tracking", record.id, tracker],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=folder.path,
            env={**os.environ, "CLOUDFT_HOME": str(home)},
        )
        # Reap the child while this process lives, so that it never stays a zombie.
        threading.Thread(target=child.wait, daemon=True).start()


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def feed_ended_job(record: JobRecord, state: JobState, evaluated_at: str | None = None) -> None:
    """Start to feed what trackers lack of a job that has ended: one from AWS that came home.

    A tracker that failed with this ending is left to `cloudft track`.
    """
    if not state.has_ended or (state.status == "Completed" and state.artifacts is None):
        return
    folder = TrackingFolder(record.folder)
    for tracker in folder.load_settings():
        known = folder.load_state(tracker)
        is_done = (
            known is not None
            and known.status in ("fed", "failed")
            and known.job_status == state.status
            and (evaluated_at is None or known.evaluated_at == evaluated_at)
        )
        if not is_done and not folder.is_being_fed(tracker):
            _start(folder, record, tracker)
