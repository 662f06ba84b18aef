"""The jobs of all backends in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.workbench.events import stream_events
from cloudft.workbench.job_table import SORTS, JobRow, TablePage, TableQuery, make_table
from cloudft.workbench.live_table import LiveTable, version_of
from cloudft.workbench.rendering import render_page, render_part
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [Route("/", show_jobs), Route("/live/jobs", follow_jobs)]


def show_jobs(request: Request) -> Response:
    """Show every job, newest first unless another order is chosen."""
    table = make_table(workbench_of(request), TableQuery.from_params(request.query_params))
    return render_page(request, "jobs.html", {"section": "jobs", **_values(request, table)})


def follow_jobs(request: Request) -> Response:
    """Send the rows that change, and the table when jobs come or go."""
    live = LiveTable(
        workbench_of(request),
        TableQuery.from_params(request.query_params),
        request.query_params.get("seen", ""),
        render_row=lambda row: _render_row(request, row),
        render_table=lambda table: render_part(request, "jobs_table.html", _values(request, table)),
    )
    return stream_events(request, live.look)


def _values(request: Request, table: TablePage) -> dict[str, object]:
    from markupsafe import Markup

    rows = [_render_row(request, row) for row in table.rows]
    return {
        "table": table,
        "rows": [Markup(row) for row in rows],
        "sorts": SORTS,
        "seen": version_of(rows),
    }


def _render_row(request: Request, row: JobRow) -> str:
    return render_part(request, "jobs_row.html", {"row": row})
