"""What changes on the page of a job while it is open: state, points, lines of the log."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from cloudft.backends import DEFAULT_BACKEND
from cloudft.backends.local.job_folder import LOG, METRICS
from cloudft.errors import CloudftError
from cloudft.jobs.curves.columns import XY, to_xy
from cloudft.jobs.curves.growing_file import GrowingFile, Position
from cloudft.jobs.curves.points import CurvePoint, decode_points, split_curves
from cloudft.storage.store import JobRecord
from cloudft.workbench.events import Events
from cloudft.workbench.job_log import read_log_tail, read_new_lines
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.workbench import Workbench

MAX_SENT_BYTES = 1 << 20
"""Of a curve. With more that is new, the page loads its charts again."""
SEND_EVERY_S = 0.6
"""Seconds between two sendings. A point after a pause is sent at once; those of a quick trainer
come some at a time, and are still seen within a second of their step."""
HEAD_EVERY_S = 2.0
"""Seconds between two changes of the head: a browser leaves the machine to the trainer."""


class LivePoints:
    """The points that are new in a job's curve. The file is read from where it was read to."""

    def __init__(self, record: JobRecord, offset: int) -> None:
        self._file = GrowingFile(record.folder / METRICS)
        self._position = Position(offset)
        self._is_first = True

    def look(self) -> Events:
        """Return new points by measure and curve, or `reload` where the curve was cut."""
        try:
            if self._is_first:
                self._is_first = False
                self._position = self._file.position_at(self._position.offset)
            size = self._file.size()
            if size == self._position.offset:
                return {}
            is_cut = size < self._position.offset or not self._file.continues(self._position)
            if is_cut or size - self._position.offset > MAX_SENT_BYTES:
                self._position = self._file.position_at(size)
                return {"reload": {}}
            points: list[CurvePoint] = []
            for block, behind in self._file.read_blocks(self._position):
                points += decode_points(block)[0]
                self._position = behind
        except OSError:  # for a moment, or the job was deleted: the page's head says so
            return {}
        return {"points": points_by_measure(points)} if points else {}


def curve_size(record: JobRecord) -> int:
    """Return how long the file of a job's curve is now; 0 where there is none."""
    try:
        return GrowingFile(record.folder / METRICS).size()
    except OSError:
        return 0


def points_by_measure(points: Sequence[CurvePoint]) -> dict[str, dict[str, XY]]:
    """Return points as charts append them: measure -> name of the curve -> points."""
    found: dict[str, dict[str, XY]] = {}
    for key, x, y in split_curves(points):
        found.setdefault(key.measure, {})[key.name] = to_xy(x, y)
    return found


class LiveJob:
    """Compares a job with what its page has. `look` returns what is new."""

    def __init__(
        self,
        workbench: Workbench,
        record: JobRecord,
        *,
        curve: int,
        log: int,
        render_head: Callable[[KnownJob], str],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._workbench, self._record = workbench, record
        self._points = LivePoints(record, curve)
        self._log, self._log_position = GrowingFile(record.folder / LOG), Position(log)
        self._render_head, self._clock = render_head, clock
        self._is_local = record.backend == DEFAULT_BACKEND
        self._mark: object = None
        self._is_gone = False
        self._detail: object = None
        self._head_at = -HEAD_EVERY_S
        self._sent_at = -SEND_EVERY_S

    def look(self) -> Events | None:
        """Return what is new; `gone` once the job was removed, and None after that."""
        if self._is_gone:
            return None
        if not self._record.folder.is_dir():
            self._is_gone = True
            return {"gone": {}}
        now = self._clock()
        if now - self._sent_at < SEND_EVERY_S:
            return {}
        events = dict(self._local() if self._is_local else self._cloud())
        events |= self._head(now)
        if events:
            self._sent_at = now
        return events

    def _head(self, now: float) -> Events:
        export = self._workbench.exports.get(self._record.id)
        mark = (self._workbench.jobs.fingerprint(self._record), export)
        if mark == self._mark or now - self._head_at < HEAD_EVERY_S:
            return {}
        self._mark, self._head_at = mark, now
        try:
            return {"head": self._render_head(self._workbench.jobs.get(self._record.id))}
        except CloudftError as error:  # damaged meanwhile, or removed: the next look finds that
            return {"problem": f"{error.message}: {error.fix}" if error.fix else error.message}

    def _local(self) -> Events:
        return {**self._points.look(), **self._new_lines()}

    def _new_lines(self) -> Events:
        try:
            if self._log.size() < self._log_position.offset:
                self._log_position = Position()
            lines, self._log_position = read_new_lines(self._log, self._log_position)
        except OSError:
            return {}
        return {"log": lines} if lines else {}

    def _cloud(self) -> Events:
        """Return that curves and log were read again, which happens twice a minute."""
        self._workbench.jobs.look_at_clouds([self._record])
        detail = self._workbench.curves.cloud.get(self._record)
        if detail is self._detail or detail is None:
            return {}
        self._detail = detail
        log = read_log_tail(self._record, self._workbench.curves.cloud)
        return {"reload": {}, "wholeLog": {"lines": list(log.lines), "note": log.note}}
