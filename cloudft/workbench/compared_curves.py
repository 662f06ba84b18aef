"""The curves of several jobs in one chart: a color for each job, validation dashed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from cloudft.jobs.curves.columns import CurveWindow
from cloudft.jobs.curves.points import MEASURES
from cloudft.workbench.chart import Chart
from cloudft.workbench.comparison import ComparedJob
from cloudft.workbench.curves import TITLES, CurveCache, JobCurves

MAIN_MEASURES = ("reward", "loss")
"""What a comparison shows first: the measure that counts, as far as one of the jobs has it."""


@dataclass(frozen=True)
class ComparedCurves:
    """The curves of some jobs, in the jobs' order."""

    jobs: Sequence[ComparedJob]
    curves: Sequence[JobCurves]

    def measures(self) -> list[str]:
        """Return the measures of which one of the jobs has a curve, the one that counts first."""
        found = {measure for one in self.curves for measure in one.measures()}
        ordered = dict.fromkeys((*MAIN_MEASURES, *MEASURES))
        return [measure for measure in ordered if measure in found]

    def chart(self, measure: str, window: CurveWindow | None = None) -> Chart:
        """Return one chart with the curves of all jobs."""
        charts = [one.chart(measure, window) for one in self.curves]
        pairs = list(zip(self.jobs, charts, strict=True))
        title, label = TITLES[measure]
        labels = {one.y for one in charts if one.series}
        return Chart(
            title,
            # Losses of different kinds have different units: then none is on the axis.
            labels.pop() if len(labels) == 1 else label.partition(" (")[0],
            [
                replace(series, name=f"{job.record.id}: {series.name}", color=job.color - 1)
                for job, chart in pairs
                for series in chart.series
            ],
            partial=any(one.partial for one in charts),
            notes=[f"{job.record.id}: {note}" for job, chart in pairs for note in chart.notes],
        )


def read_curves(jobs: Sequence[ComparedJob], cache: CurveCache) -> ComparedCurves:
    """Return the curves of jobs as far as they are known now. Raise StoreError."""
    return ComparedCurves(jobs, [cache.get(job.record) for job in jobs])


def measure_title(measure: str) -> str:
    """Return the title of a measure's chart."""
    return TITLES[measure][0]
