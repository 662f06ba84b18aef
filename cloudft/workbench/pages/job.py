"""One job: its curves, its state and its log, live; what it was made of, and what it has left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.jobs.curves.columns import CurveWindow
from cloudft.jobs.curves.points import MEASURES
from cloudft.workbench.chart import draw_chart
from cloudft.workbench.job_view import view_job
from cloudft.workbench.rendering import render_page
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/jobs/{job_id}", show_job),
        Route("/jobs/{job_id}/chart", send_chart),
    ]


def show_job(request: Request) -> Response:
    """Show one job."""
    workbench = workbench_of(request)
    known = workbench.jobs.get(request.path_params["job_id"])
    curves = workbench.curves.get(known.record)
    charts = [(measure, curves.chart(measure)) for measure in curves.measures()]
    values = {
        "section": "jobs",
        **view_job(known),
        "charts": [(measure, one.title, draw_chart(one)) for measure, one in charts],
    }
    return render_page(request, "job.html", values)


def send_chart(request: Request) -> Response:
    """Send the curves of one measure, or of a part of the steps, as JSON."""
    from starlette.responses import JSONResponse

    workbench = workbench_of(request)
    measure = request.query_params.get("measure", "loss")
    if measure not in MEASURES:
        raise UsageError(
            f"there is no curve of {measure[:100]}", fix=f"use one of: {', '.join(MEASURES)}."
        )
    window = CurveWindow(_number(request, "from"), _number(request, "to"))
    record = workbench.jobs.get(request.path_params["job_id"]).record
    return JSONResponse(workbench.curves.get(record).chart(measure, window).to_json())


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    try:
        return None if text is None else float(text)
    except ValueError as error:
        raise UsageError(f"{name} is no number", fix="zoom by the chart.") from error
