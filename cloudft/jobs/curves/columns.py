"""The curves of one job in memory, extended as its file grows."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from cloudft.jobs.curves.decimation import decimate
from cloudft.jobs.curves.growing_file import GrowingFile, Position
from cloudft.jobs.curves.points import CurveKey, CurvePoint, decode_points, split_curves
from cloudft.types import Metric

if TYPE_CHECKING:
    from numpy.typing import NDArray

DRAWN_POINTS = 1000
"""Points of a curve that a chart gets at most."""
MARK_BYTES = 1 << 20
"""Distance of the positions to which reading can return when the file was cut."""
_Number = TypeVar("_Number", np.int32, np.float64)
XY = list[tuple[int, float | None]]
"""Steps done and values; None where a value is not finite."""


@dataclass(frozen=True)
class CurveWindow:
    """The steps from `first` to `last` of curves; None for an end that is open."""

    first: float | None = None
    last: float | None = None


class Column:
    """One curve: steps that rise, and a value for each."""

    def __init__(self) -> None:
        self.count = 0
        self._x: NDArray[np.int32] = np.empty(64, np.int32)
        self._y: NDArray[np.float64] = np.empty(64, np.float64)

    def extend(self, x: Sequence[int], y: Sequence[float]) -> None:
        """Append points. A step that is there already was taken again: it replaces the rest."""
        steps, values = np.asarray(x, np.int32), np.asarray(y, np.float64)
        rising = np.append(np.minimum.accumulate(steps[::-1])[::-1][1:], np.iinfo(np.int32).max)
        is_kept = steps < rising
        steps, values = steps[is_kept], values[is_kept]
        self.truncate(int(np.searchsorted(self._x[: self.count], steps[0])))
        total = self.count + len(steps)
        if total > len(self._x):
            self._x = _grown(self._x, total + total // 2)
            self._y = _grown(self._y, total + total // 2)
        self._x[self.count : total], self._y[self.count : total] = steps, values
        self.count = total

    def truncate(self, count: int) -> None:
        """Keep the first `count` points."""
        self.count = min(self.count, count)

    def drawn_points(self, window: CurveWindow, limit: int = DRAWN_POINTS) -> XY:
        """Return at most `limit` points of a window, and one on each side of it."""
        x, y = self._x[: self.count], self._y[: self.count]
        begin = 0 if window.first is None else max(0, int(np.searchsorted(x, window.first)) - 1)
        last = window.last
        end = self.count if last is None else int(np.searchsorted(x, last, "right")) + 1
        x, y = x[begin:end], y[begin:end]
        chosen = decimate(y, limit)
        return to_xy(x[chosen].tolist(), y[chosen].tolist())


def _grown(values: NDArray[_Number], size: int) -> NDArray[_Number]:
    grown = np.empty(size, values.dtype)
    grown[: len(values)] = values
    return grown


def to_xy(steps: Sequence[int], values: Sequence[float]) -> XY:
    """Return points as JSON can hold them."""
    pairs = zip(steps, values, strict=True)
    return [(x, y if math.isfinite(y) else None) for x, y in pairs]


class CurveColumns:
    """All curves of a job. Threads share it: `lock` is held while it is read or extended."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.columns: dict[CurveKey, Column] = {}
        self.unreadable = 0
        """Lines of the file that are no points."""

    def add(self, points: Sequence[CurvePoint | Metric]) -> None:
        """Append points, by step."""
        for key, x, y in split_curves(points):
            self.columns.setdefault(key, Column()).extend(x, y)

    def count(self) -> int:
        """Return the number of values in memory."""
        return sum(column.count for column in self.columns.values())


@dataclass(frozen=True)
class _Mark:
    position: Position
    counts: dict[CurveKey, int]
    unreadable: int


class FileCurves(CurveColumns):
    """The curves in a metrics.jsonl. Each line is read once, whatever the length of the file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.file = GrowingFile(path)
        self._position = Position()
        self._marks: list[_Mark] = [_Mark(Position(), {}, 0)]

    @property
    def unread_bytes(self) -> int:
        """Return how much of the file is not read yet. Raise OSError."""
        return self.file.size() - self._position.offset

    def update(self) -> None:
        """Read what is new. Where the file was cut, return to the last part that is unchanged.

        The lock is free between two blocks: a page that needs what is there does not wait for all.
        Raise OSError.
        """
        with self.lock:
            if not self.file.continues(self._position):
                self._return_to_unchanged()
            position = self._position
        for block, behind in self.file.read_blocks(position):
            points, unreadable = decode_points(block)
            with self.lock:
                if self._position != position:  # another thread was faster
                    return
                self.add(points)
                self.unreadable += unreadable
                self._position = position = behind
                self._set_mark()

    def _set_mark(self) -> None:
        if self._position.offset - self._marks[-1].position.offset >= MARK_BYTES:
            counts = {key: column.count for key, column in self.columns.items()}
            self._marks.append(_Mark(self._position, counts, self.unreadable))

    def _return_to_unchanged(self) -> None:
        while not self.file.continues(self._marks[-1].position):
            self._marks.pop()
        mark = self._marks[-1]
        for key in list(self.columns):
            if key in mark.counts:
                self.columns[key].truncate(mark.counts[key])
            else:
                del self.columns[key]
        self._position, self.unreadable = mark.position, mark.unreadable
