"""Put the workbench's pages together: one ASGI application."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

from cloudft.errors import CloudftError
from cloudft.web.design import read_stylesheet
from cloudft.workbench import pages
from cloudft.workbench.errors import show_error, show_failure, show_not_found
from cloudft.workbench.guard import GuardMiddleware
from cloudft.workbench.workbench import Workbench

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp


def build_app(workbench: Workbench) -> ASGIApp:
    """Return the application behind its guard."""
    from starlette.applications import Starlette
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    routes: list[BaseRoute] = [
        Route("/static/base.css", _send_stylesheet),
        Mount("/static", StaticFiles(packages=[("cloudft.workbench", "static")])),
    ]
    for page in iter_modules(pages.__path__):
        routes += import_module(f"{pages.__name__}.{page.name}").routes()
    app: Starlette = Starlette(
        routes=routes,
        exception_handlers={
            CloudftError: show_error,
            404: show_not_found,
            Exception: show_failure,
        },
    )
    app.state.workbench = workbench
    return GuardMiddleware(app, workbench)


def _send_stylesheet(_request: Request) -> Response:
    from starlette.responses import Response

    return Response(read_stylesheet(), media_type="text/css")
