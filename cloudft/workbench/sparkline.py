"""Small curves for the table of jobs, of a few sampled points."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.backends import DEFAULT_BACKEND
from cloudft.backends.local.job_folder import ARTIFACTS, METRICS
from cloudft.errors import BadDocument
from cloudft.jobs.curves.points import CurvePoint
from cloudft.jobs.curves.sampling import sample_points
from cloudft.storage.artifacts import is_complete, read_metrics
from cloudft.storage.store import JobRecord
from cloudft.types import Metric

if TYPE_CHECKING:
    from markupsafe import Markup

POINTS = 40
WIDTH, HEIGHT, MARGIN = 96, 24, 2


@dataclass(frozen=True)
class Sparkline:
    """The training curve of a job in short: what it shows, and (step, value) of its points."""

    measure: str = "loss"
    points: Sequence[tuple[int, float]] = ()

    @property
    def last(self) -> float | None:
        """Return the last value; None without one."""
        return self.points[-1][1] if self.points else None


class Sparklines:
    """The sparklines that were made. A file is sampled again when it has changed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[str, tuple[object, Sparkline]] = {}

    def get(self, record: JobRecord) -> Sparkline:
        """Return the sparkline of a job; an empty one where nothing can be read."""
        is_local = record.backend == DEFAULT_BACKEND
        path = record.folder / (METRICS if is_local else ARTIFACTS)
        try:
            found = path.stat()
        except OSError:
            return Sparkline()
        mark = (found.st_size, found.st_mtime_ns, found.st_ino)
        with self._lock:
            made = self._made.get(record.id)
        if made is not None and made[0] == mark:
            return made[1]
        sparkline = _summarize(list(_read(path, is_local=is_local)))
        with self._lock:
            self._made[record.id] = mark, sparkline
        return sparkline


def draw_sparkline(sparkline: Sparkline) -> Markup:
    """Return the curve as SVG. A value that is not finite is a gap, with a mark at the top."""
    from markupsafe import Markup

    finite = [(x, y) for x, y in sparkline.points if math.isfinite(y)]
    if not finite:
        return Markup("")
    xs, ys = [x for x, _ in sparkline.points], [y for _, y in finite]
    wide, high = max(1, xs[-1] - xs[0]), max(ys) - min(ys) or 1.0

    def place(x: float, y: float) -> str:
        across = MARGIN + (WIDTH - 2 * MARGIN) * (x - xs[0]) / wide
        return f"{across:.1f},{HEIGHT - MARGIN - (HEIGHT - 2 * MARGIN) * (y - min(ys)) / high:.1f}"

    path, pen, gaps = "", "M", ""
    for x, y in sparkline.points:
        if math.isfinite(y):
            path, pen = f"{path}{pen}{place(x, y)}", "L"
        else:
            pen = "M"
            gaps += f'<path class="bad-point" d="M{place(x, max(ys))}m-2,-2l4,4m0,-4l-4,4"/>'
    title = f"{sparkline.measure} from {finite[0][1]:.4g} to {finite[-1][1]:.4g}"
    return Markup(
        f'<svg class="spark" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}">'
        f'<path d="{path}"/>{gaps}</svg>'
    )


def _read(path: Path, *, is_local: bool) -> Iterator[CurvePoint | Metric]:
    try:
        if is_local:
            yield from sample_points(path, POINTS)
        elif is_complete(path):
            yield from read_metrics(path)
    except (BadDocument, OSError):  # the job's own page says so
        return


def _summarize(points: Sequence[CurvePoint | Metric]) -> Sparkline:
    own = sorted((p for p in points if p.split == "train"), key=lambda p: p.step)
    measure = "reward" if any(p.reward is not None for p in own) else "loss"
    values = [(p.step + 1, getattr(p, measure)) for p in own]
    found = [(step, float(value)) for step, value in values if value is not None]
    every = max(1, len(found) // (2 * POINTS))
    return Sparkline(measure, [*found[:-1:every], *found[-1:]])
