"""One job: its curves, its state and its log, live; what it was made of, and what it has left."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.jobs.curves.columns import CurveWindow
from cloudft.jobs.curves.points import MEASURES
from cloudft.workbench.chart import draw_chart
from cloudft.workbench.events import stream_events
from cloudft.workbench.forms import Form, form_action
from cloudft.workbench.job_actions import ACTIONS, describe_action, run_action
from cloudft.workbench.job_log import log_path, read_log_tail
from cloudft.workbench.job_view import view_body, view_head
from cloudft.workbench.live_job import LiveJob, curve_size
from cloudft.workbench.rendering import render_page, render_part
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

    from cloudft.workbench.job_states import KnownJob

MAX_OFFSET = 2**62


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [
        Route("/jobs/{job_id}", show_job),
        Route("/jobs/{job_id}/chart", send_chart),
        Route("/jobs/{job_id}/charts", show_charts),
        Route("/jobs/{job_id}/live", follow_job),
        Route("/jobs/{job_id}/log", send_log),
        Route("/jobs/{job_id}/{action:str}", confirm, methods=["GET"]),
        Route("/jobs/{job_id}/{action:str}", form_action(act), methods=["POST"]),
    ]


def show_job(request: Request) -> Response:
    """Show one job."""
    workbench = workbench_of(request)
    known = _job(request)
    record = known.record
    # Sizes first: what is appended after them is sent by the page's events.
    curve = curve_size(record)
    log = read_log_tail(record, workbench.curves.cloud)
    values = {
        "section": "jobs",
        **_head_values(request, known),
        **view_body(known),
        **_chart_values(request, known),
        "log": log,
        "live": f"/jobs/{record.id}/live?curve={curve}&log={log.offset}",
    }
    return render_page(request, "job.html", values)


def show_charts(request: Request) -> Response:
    """Send the figures of all curves, for a page that lacks one."""
    from starlette.responses import HTMLResponse

    known = _job(request)
    values = {"record": known.record, **_chart_values(request, known)}
    return HTMLResponse(render_part(request, "job_charts.html", values))


def send_chart(request: Request) -> Response:
    """Send the curves of one measure, or of a part of the steps, as JSON."""
    from starlette.responses import JSONResponse

    measure = request.query_params.get("measure", "loss")
    if measure not in MEASURES:
        raise UsageError(
            f"there is no curve of {measure[:100]}", fix=f"use one of: {', '.join(MEASURES)}."
        )
    window = CurveWindow(_number(request, "from"), _number(request, "to"))
    curves = workbench_of(request).curves.get(_job(request).record)
    return JSONResponse(curves.chart(measure, window).to_json())


def follow_job(request: Request) -> Response:
    """Send new points, new lines of the log, and the head whenever the state changes."""
    live = LiveJob(
        workbench_of(request),
        _job(request).record,
        curve=_offset(request, "curve"),
        log=_offset(request, "log"),
        render_head=lambda known: render_part(
            request, "job_head.html", _head_values(request, known)
        ),
    )
    return stream_events(request, live.look)


def send_log(request: Request) -> Response:
    """Send the whole log as text."""
    from starlette.responses import FileResponse, PlainTextResponse

    record = _job(request).record
    path = log_path(record)
    if path is not None:
        return FileResponse(path, media_type="text/plain; charset=utf-8")
    detail = workbench_of(request).curves.cloud.get(record)
    lines = [line.text for line in detail.log] if detail else []
    return PlainTextResponse("\n".join(lines))


def confirm(request: Request) -> Response:
    """Show what an action will do, and ask for it."""
    known, name = _job(request), request.path_params["action"]
    if name not in ACTIONS:
        from starlette.exceptions import HTTPException

        raise HTTPException(404)
    action = describe_action(known, name)
    return render_page(request, "job_action.html", {"section": "jobs", "action": action})


def act(request: Request, form: Form) -> Response:
    """Do what was confirmed, and return to the job."""
    from starlette.responses import RedirectResponse

    known, name = _job(request), request.path_params["action"]
    run_action(workbench_of(request), known, name, form)
    return RedirectResponse(f"{request.scope['root_path']}/jobs/{known.record.id}", 303)


def _job(request: Request) -> KnownJob:
    return workbench_of(request).jobs.get(request.path_params["job_id"])


def _head_values(request: Request, known: KnownJob) -> dict[str, object]:
    workbench = workbench_of(request)
    head = view_head(known, read_only=workbench.read_only)
    return {**head, "export": workbench.exports.get(known.record.id)}


def _chart_values(request: Request, known: KnownJob) -> dict[str, object]:
    curves = workbench_of(request).curves.get(known.record)
    charts = [(measure, curves.chart(measure)) for measure in curves.measures()]
    drawn = [(measure, one.title, draw_chart(one)) for measure, one in charts]
    return {"charts": drawn, "chart_notes": curves.notes, "is_partial": curves.is_partial}


def _number(request: Request, name: str) -> float | None:
    text = request.query_params.get(name)
    try:
        number = None if text is None else float(text)
    except ValueError:
        number = math.nan
    if number is not None and not math.isfinite(number):
        raise UsageError(f"{name} is no number", fix="reset the zoom of the chart.")
    return number


def _offset(request: Request, name: str) -> int:
    """Return how much of a file the page has, in bytes. Raise UsageError."""
    offset = int(_number(request, name) or 0)
    if not 0 <= offset <= MAX_OFFSET:
        raise UsageError(f"{name} is not an offset in a file", fix="reload the page.")
    return offset
