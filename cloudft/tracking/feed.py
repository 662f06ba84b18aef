"""Feed one tracker of one job, from the job's own curve, until the job has ended.

The curve is the truth. At its start and after every fault, a feeder reads what the tracker has and
sends the rest, so it may be killed at any time. It runs in a process of its own that nobody waits
for; a call that the tracker does not answer ends the process, and another one takes its place.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from cloudft.backends.base import Backend
from cloudft.errors import CloudftError, CloudRefused, CloudUnreachable
from cloudft.jobs import lifecycle
from cloudft.storage.store import JobRecord, utc_now
from cloudft.storage.tracking_files import TrackerState, TrackingFolder
from cloudft.tracking import facts
from cloudft.tracking.curve import Curve, PointKey, compare, read_curve
from cloudft.tracking.sink import Sink, TrackerFailed
from cloudft.types import JobState, Metric

BATCH = 1000
"""Values that are sent by one call: the tracker answers each within the patience."""
LARGEST_SHARE = 0.05
"""Of the time that the feeding of a running job may take."""
ATTEMPTS_AT_END = 3
"""How often an ended job is offered to a tracker that fails, before `cloudft track` is left."""
MESSAGE_LENGTH = 300
_USER_INFO = re.compile(r"(?<=://)[^/@\s]+@")
_QUERY = re.compile(r"\?[^\s'\")]*")

Heartbeat = Callable[[str], None]
"""Called before each call of the tracker, with what is done."""


@dataclass
class Feeder:
    """Feeds one tracker of one job."""

    record: JobRecord
    backend: Backend
    tracker: str
    make_sink: Callable[[], Sink]
    heartbeat: Heartbeat = lambda what: None
    sleep: Callable[[float], None] = time.sleep
    state: TrackerState = field(default_factory=lambda: TrackerState("feeding", utc_now()))

    def __post_init__(self) -> None:
        self._folder = TrackingFolder(self.record.folder)
        self._sink: Sink | None = None
        self._sent: dict[PointKey, float] = {}
        self._seen: tuple[object, ...] | None = None
        self._curve = Curve((), {})

    def run(self) -> bool:
        """Feed the tracker until it has all of the ended job; return whether it has.

        After a failure, `should_retry` says whether another process is to take over.
        """
        try:
            while not self._pass():
                pass
        except Exception as error:  # of the tracker's library: anything
            self.note_failure(error)
            return False
        return True

    def note_failure(self, error: Exception) -> None:
        """Write why the tracker could not be fed. An ended job is tried a few times."""
        self.state.attempt += 1
        self.state.message, self.state.fix = describe_failure(error)
        self.state.waiting_since = None
        ended = self._has_ended()
        is_last = ended and self.state.attempt >= ATTEMPTS_AT_END
        self.state.status = "failed" if is_last else "feeding"
        self._save_state()

    @property
    def should_retry(self) -> bool:
        """Return whether the job is not given up."""
        return self.state.status == "feeding"

    def _has_ended(self) -> bool:
        with contextlib.suppress(CloudftError):
            job = self._job_state()
            self.state.job_status = job.status
            return job.has_ended
        return False

    def _job_state(self) -> JobState:
        return lifecycle.refresh(self.record, self.backend).state

    def _pass(self) -> bool:
        """Send what the tracker lacks; return True when that is all of an ended job."""
        began = time.monotonic()
        job = self._job_state()  # before the curve: what a job writes before it ends is read
        if not job.has_ended and not self.backend.keeps_job_id:
            # On AWS there is no curve before the end, and nobody pays for polling: `status` and
            # `watch` start the feeding when they see the end.
            self.state.status, self.state.job_status = "waiting", job.status
            self._save_state()
            return True
        curve = self._read_curve(job)
        if not curve.points and not job.has_ended:
            self.sleep(1.0)
            return False
        if self._sink is None:
            self._open()
        assert self._sink is not None
        self._send(curve, has_ended=job.has_ended)
        if job.has_ended:
            return self._finish(job, curve)
        self._note_progress(curve, "feeding", job)
        # A long curve is read and compared more seldom: the trainer has the cores.
        spent = time.monotonic() - began
        self.sleep(max(self._sink.flush_seconds, spent / LARGEST_SHARE))
        return False

    def _read_curve(self, job: JobState) -> Curve:
        """Return the job's curve; the one before where nothing was written since."""
        seen = _version_of(self.record, job)
        if seen is None or seen != self._seen:
            self._curve = read_curve(self._metrics(job), facts.created_at(self.record))
            self._seen = seen
        return self._curve

    def _metrics(self, job: JobState) -> list[Metric]:
        """Return the points that are on this machine; AWS's come when the job is Completed."""
        if job.artifacts is None and not self.backend.keeps_job_id:
            return []
        return list(self.backend.metrics(self.record.backend_job_id or self.record.id))

    def _open(self) -> None:
        self._call("load")
        sink = self.make_sink()
        self._call("open")
        self._sent = dict(sink.open(facts.run_facts(self.record)))
        self._sink = sink

    def _send(self, curve: Curve, *, has_ended: bool) -> None:
        assert self._sink is not None
        difference = compare(curve, self._sent, has_ended=has_ended)
        if difference.is_outdated:
            self._call("begin again")
            self._sink.begin_again()
            self._sent = {}
        for start in range(0, len(difference.missing), BATCH):
            batch = difference.missing[start : start + BATCH]
            self._call("send")
            self._sink.log_points(batch)
            self._sent.update({point.key: point.value for point in batch})

    def _finish(self, job: JobState, curve: Curve) -> bool:
        assert self._sink is not None
        self._call("finish")
        outcome = facts.outcome(self.record, job, curve)
        url = self._sink.url
        self._sink.finish(outcome)
        self._sink.close()
        if outcome.evaluation is not None:
            self.state.evaluated_at = outcome.evaluation.evaluated_at
        self._note_progress(curve, "fed", job, url)
        return True

    def _call(self, what: str) -> None:
        """Note that the tracker is called now."""
        self.heartbeat(what)
        if self.state.waiting_since is None or self.state.message is None:
            self.state.waiting_since = utc_now()
            self._save_state()

    def _note_progress(
        self, curve: Curve, status: Any, job: JobState, url: str | None = None
    ) -> None:
        assert self._sink is not None
        new = TrackerState(
            status=status,
            updated_at=self.state.updated_at,
            points=len(self._sent),
            url=url or self._sink.url,
            job_status=job.status,
            evaluated_at=self.state.evaluated_at,
            not_finite={name: len(steps) for name, steps in curve.not_finite.items()},
        )
        self.heartbeat("")
        if new != self.state:
            self.state = new
            self._save_state()

    def _save_state(self) -> None:
        with contextlib.suppress(OSError):  # a full disk, or the job was deleted: seen elsewhere
            self._folder.save_state(self.tracker, self.state)


def _version_of(record: JobRecord, job: JobState) -> tuple[object, ...] | None:
    """Return what changes whenever the curve does; None where that is not known."""
    try:
        found = (record.folder / "metrics.jsonl").stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, job.status, job.artifacts


def describe_failure(error: Exception) -> tuple[str, str]:
    """Return what a tracker's failure is for people, and what to do; without credentials."""
    if isinstance(error, (TrackerFailed, CloudRefused, CloudUnreachable)):
        return error.message, error.fix or "see the log"
    text = " ".join(str(error).split()) or type(error).__name__
    text = _QUERY.sub("", _USER_INFO.sub("", text))[:MESSAGE_LENGTH]
    lowered = text.lower()
    if any(word in lowered for word in ("connection", "connect", "timed out", "max retries")):
        return f"could not be reached: {text}", "start the server, or correct its address"
    return f"{type(error).__name__}: {text}", "see the log in the job's folder `tracking`"
