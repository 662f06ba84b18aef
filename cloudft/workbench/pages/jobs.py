"""The jobs of all backends in one table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cloudft.workbench.rendering import render_page
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of this page."""
    from starlette.routing import Route

    return [Route("/", show_jobs)]


def show_jobs(request: Request) -> Response:
    """Show every job, newest first."""
    return render_page(
        request, "jobs.html", {"section": "jobs", "jobs": workbench_of(request).store.job_ids()}
    )
