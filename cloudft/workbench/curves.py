"""The curves of jobs for charts: in memory while the workbench runs, extended as files grow.

A long curve is first shown sampled, at once. It is read whole meanwhile; then no peak is missing.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from cloudft.backends import DEFAULT_BACKEND
from cloudft.backends.local.job_folder import METRICS
from cloudft.jobs.curve_measure import LOSS, PAIR_LOSS, POLICY_LOSS
from cloudft.jobs.curves.columns import (
    DRAWN_POINTS,
    CurveColumns,
    CurveWindow,
    FileCurves,
)
from cloudft.jobs.curves.points import MEASURES, CurveKey
from cloudft.jobs.curves.sampling import sample_points
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.store import JobRecord
from cloudft.workbench.chart import Chart, Series
from cloudft.workbench.cloud_details import CloudDetails

READ_AT_ONCE_BYTES = 8 << 20
"""So much of a curve is read while a page waits: some 50,000 points."""
SAMPLED_POINTS = 900
"""Of a curve that is not read yet: with its last lines fewer than are drawn of one."""
MAX_VALUES = 32_000_000
"""Values in memory, of all curves together: some 400 MB, ten jobs of a million steps.

The curves that were used longest ago leave first."""
SAMPLED = "a sample of the curve; all of it is being read"
LOOKING = "reading it from the cloud"
TITLES = {
    "loss": ("Loss", LOSS.label),
    "reward": ("Reward", "mean reward"),
    "learning_rate": ("Learning rate", "learning rate"),
    "tokens_per_second": ("Speed", "tokens per second"),
    "kl": ("Divergence from the base", "KL (nats)"),
    "response_length": ("Answer length", "tokens"),
    "entropy": ("Entropy", "nats"),
    "dead_groups": ("Prompts whose answers got one reward", "share"),
    "clip_fraction": ("Clipped tokens", "share"),
    "chosen_reward": ("Reward of chosen answers", "mean reward"),
    "rejected_reward": ("Reward of rejected answers", "mean reward"),
    "reward_margin": ("Margin of rewards", "chosen minus rejected"),
    "preference_accuracy": ("Pairs ranked as the data does", "share"),
}
"""Measure -> title of its chart, and label of its axis."""


@dataclass(frozen=True)
class JobCurves:
    """The curves of a job as far as they are known. With `is_partial`, more are being read."""

    columns: CurveColumns
    is_partial: bool = False
    notes: Sequence[str] = ()

    def measures(self) -> list[str]:
        """Return the measures that have a curve, the one that counts first."""
        with self.columns.lock:
            found = {key.measure for key in self.columns.columns}
        first = ["reward"] if "reward" in found else []
        return first + [name for name in MEASURES if name in found and name not in first]

    def chart(self, measure: str, window: CurveWindow | None = None) -> Chart:
        """Return the chart of a measure, or of a part of its steps."""
        keys = self._keys(measure)
        title, label = TITLES[measure]
        if measure == "loss":
            label = self._loss_label(label)
        unreadable = self.columns.unreadable
        damage = [f"{unreadable} lines of the curve's file can't be read"] if unreadable else []
        series = [self.series(key, window) for key in keys]
        return Chart(title, label, series, partial=self.is_partial, notes=[*self.notes, *damage])

    def series(self, key: CurveKey, window: CurveWindow | None = None) -> Series:
        """Return one curve, with at most DRAWN_POINTS points."""
        with self.columns.lock:
            column = self.columns.columns.get(key)
            points = column.drawn_points(window or CurveWindow(), DRAWN_POINTS) if column else []
        return Series(key.name, points, key.split)

    def _loss_label(self, label: str) -> str:
        measures = self.measures()
        if "reward" in measures:
            return POLICY_LOSS.label
        return PAIR_LOSS.label if "reward_margin" in measures else label

    def _keys(self, measure: str) -> list[CurveKey]:
        with self.columns.lock:
            found = [key for key in self.columns.columns if key.measure == measure]
        return sorted(found, key=lambda key: (key.split, key.validation_set or ""))


class CurveCache:
    """The curves of the jobs that were shown last. Threads share it."""

    def __init__(self, cloud: CloudDetails) -> None:
        self.cloud = cloud
        self._lock = threading.Lock()
        self._files: OrderedDict[str, FileCurves] = OrderedDict()
        self._reading: set[str] = set()
        # One at a time: a page that shows ten long curves leaves a core to the trainer.
        self._reader = ThreadPoolExecutor(max_workers=1, thread_name_prefix="curves")

    def get(self, record: JobRecord) -> JobCurves:
        """Return the curves of a job as far as they are known now; more is read in the background.

        Raise StoreError.
        """
        if record.backend == DEFAULT_BACKEND:
            with as_store_error(f"the curve of {record.id} can't be read", record.folder):
                return self._local(record)
        detail = self.cloud.get(record)
        if detail is None:
            return JobCurves(CurveColumns(), is_partial=True, notes=[LOOKING])
        notes = [f"could not look: {detail.reason}"] if detail.reason else []
        return JobCurves(detail.curves, notes=notes)

    def _local(self, record: JobRecord) -> JobCurves:
        curves = self._curves_of(record)
        if curves.unread_bytes <= READ_AT_ONCE_BYTES and record.id not in self._reading:
            curves.update()
            self._forget_oldest()
            return JobCurves(curves)
        self._read_in_background(record.id, curves)
        sampled = CurveColumns()
        sampled.add(sample_points(record.folder / METRICS, SAMPLED_POINTS))
        return JobCurves(sampled, is_partial=True, notes=[SAMPLED])

    def _curves_of(self, record: JobRecord) -> FileCurves:
        with self._lock:
            curves = self._files.get(record.id)
            if curves is None or curves.file.path.parent != record.folder:
                curves = self._files[record.id] = FileCurves(record.folder / METRICS)
            self._files.move_to_end(record.id)
            return curves

    def _read_in_background(self, job_id: str, curves: FileCurves) -> None:
        with self._lock:
            if job_id in self._reading:
                return
            self._reading.add(job_id)

        def read() -> None:
            try:
                curves.update()
            finally:
                with self._lock:
                    self._reading.discard(job_id)
                self._forget_oldest()

        self._reader.submit(read)

    def _forget_oldest(self) -> None:
        with self._lock:
            total = sum(curves.count() for curves in self._files.values())
            while total > MAX_VALUES and len(self._files) > 1:
                _, oldest = self._files.popitem(last=False)
                total -= oldest.count()
