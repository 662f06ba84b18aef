"""Compare jobs: their curves, what differs between their settings, and how they were judged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.workbench.comparison import (
    find_jobs,
    list_choices,
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

    return [Route("/compare", show_comparison)]


def show_comparison(request: Request) -> Response:
    """Show the jobs that the address names (`job`, repeated), and a form to pick others."""
    store = workbench_of(request).store
    chosen = find_jobs(store, request.query_params.getlist("job"))
    jobs = read_compared_jobs(chosen)
    values: dict[str, object] = {
        "section": "compare",
        "jobs": jobs,
        "chosen": {job.record.id for job in jobs},
        "choices": list_choices(store, chosen),
    }
    if jobs:
        ranking, warnings = rank_jobs(jobs)
        differing, same = setting_tables(jobs)
        values |= {
            "differing": differing,
            "same": same,
            "same_count": sum(len(table.rows) for table in same),
            "boards": [view_board(board, jobs) for board in ranking.boards],
            "ranking": ranking,
            "warnings": warnings,
        }
    return render_page(request, "compare.html", values)
