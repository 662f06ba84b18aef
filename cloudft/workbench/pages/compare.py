"""Compare jobs: their curves, what differs between their settings, and how they were judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from cloudft.errors import UsageError
from cloudft.jobs.curves.columns import CurveWindow
from cloudft.jobs.curves.points import MEASURES
from cloudft.workbench.chart import draw_chart
from cloudft.workbench.compared_curves import ComparedCurves, measure_title, read_curves
from cloudft.workbench.comparison import (
    ComparedJob,
    find_jobs,
    list_picks,
    rank_jobs,
    read_compared_jobs,
    setting_tables,
    view_board,
)
from cloudft.workbench.rendering import render_page
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [Route("/compare", show_comparison), Route("/compare/chart", send_chart)]


def show_comparison(request: Request) -> Response:
    """Show the jobs that the address names (`job`, repeated), and a form to pick others."""
    workbench = workbench_of(request)
    jobs = _jobs(request)
    values: dict[str, object] = {
        "section": "compare",
        "jobs": jobs,
        "chosen": {job.record.id for job in jobs},
        "is_running": any(job.is_running for job in jobs),
        "with_first": {job.record.id: _address_with_first(job, jobs) for job in jobs},
        "choices": list_picks(workbench.jobs, jobs),
    }
    if jobs:
        curves = read_curves(jobs, workbench.curves)
        values |= _curve_values(curves, request.query_params.get("measure")) | _table_values(jobs)
    return render_page(request, "compare.html", values)


def send_chart(request: Request) -> Response:
    """Send the curves of one measure of several jobs, or of a part of the steps, as JSON."""
    from starlette.responses import JSONResponse

    measure = _checked_measure(request.query_params.get("measure", "loss"))
    window = CurveWindow(_number(request, "from"), _number(request, "to"))
    curves = read_curves(_jobs(request), workbench_of(request).curves)
    return JSONResponse(curves.chart(measure, window).to_json())


def _jobs(request: Request) -> list[ComparedJob]:
    workbench = workbench_of(request)
    records = find_jobs(workbench.store, request.query_params.getlist("job"))
    return read_compared_jobs(records, workbench.jobs)


def _address_with_first(first: ComparedJob, jobs: Sequence[ComparedJob]) -> str:
    """Return the address of the same comparison, in which the others are compared with `first`."""
    ids = [first.record.id, *(job.record.id for job in jobs if job is not first)]
    return f"/compare?{urlencode([('job', one) for one in ids])}"


def _curve_values(curves: ComparedCurves, named: str | None) -> dict[str, object]:
    """Return the chart of a measure, and the addresses of the others."""
    measures = curves.measures()
    ids = [("job", job.record.id) for job in curves.jobs]
    shown = _checked_measure(named) if named else (measures or ["loss"])[0]
    return {
        "chart": draw_chart(curves.chart(shown)) if shown in measures else None,
        "chart_title": measure_title(shown),
        "chart_address": f"/compare/chart?{urlencode([*ids, ('measure', shown)])}",
        "other_measures": [
            (measure_title(one), f"/compare?{urlencode([*ids, ('measure', one)])}#curves")
            for one in measures
            if one != shown
        ],
        "is_partial": curves.chart(shown).partial,
    }


def _table_values(jobs: Sequence[ComparedJob]) -> dict[str, object]:
    """Return leaderboards and settings."""
    ranking, warnings = rank_jobs(jobs)
    differing, same = setting_tables(jobs)
    return {
        "differing": differing,
        "same": same,
        "same_count": sum(len(table.rows) for table in same),
        "boards": [view_board(board, jobs) for board in ranking.boards],
        "ranking": ranking,
        "warnings": warnings,
    }


def _checked_measure(measure: str) -> str:
    if measure not in MEASURES:
        raise UsageError(
            f"there is no curve of {measure[:100]}", fix=f"use one of: {', '.join(MEASURES)}."
        )
    return measure


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise UsageError(f"{name} is no number", fix="zoom by the chart.") from error
