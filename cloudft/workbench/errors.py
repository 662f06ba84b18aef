"""Turn errors into pages: what is wrong, where, and the fix."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloudft.errors import (
    CheckFailed,
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    JobNotFound,
    JobStateConflict,
    UsageError,
)
from cloudft.workbench.forms import FormRefused
from cloudft.workbench.rendering import render_page

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

STATUSES: tuple[tuple[type[CloudftError], int], ...] = (
    (FormRefused, 403),
    (JobNotFound, 404),
    (JobStateConflict, 409),
    (UsageError, 400),
    (CheckFailed, 400),
    (CloudRefused, 502),
    (CloudUnreachable, 503),
    (CloudftError, 500),
)
"""Error -> HTTP status; the first class that fits counts."""


def show_error(request: Request, error: Exception) -> Response:
    """Return the page of an error that cloudft raises on purpose; JSON for a script."""
    assert isinstance(error, CloudftError)
    status = next(status for kind, status in STATUSES if isinstance(error, kind))
    value = {
        "code": error.code,
        "message": error.message,
        "file": error.file,
        "line": error.line,
        "field": error.field,
        "fix": error.fix,
    }
    return _answer(request, value, status)


def show_failure(request: Request, error: Exception) -> Response:
    """Return the page of an error that is a fault of cloudft. What the error says is not shown."""
    value = {
        "code": "InternalError",
        "message": f"the workbench failed: {type(error).__name__}",
        "file": None,
        "line": None,
        "field": None,
        "fix": "report it, with what the terminal of `cloudft ui` shows",
    }
    return _answer(request, value, 500)


def _answer(request: Request, value: Mapping[str, object], status: int) -> Response:
    from starlette.responses import JSONResponse

    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse({"error": value}, status_code=status)
    return render_page(request, "error.html", {"section": "", "error": value}, status=status)


def show_not_found(request: Request, _error: Exception) -> Response:
    """Return the page of an address that there is not."""
    value = {
        "code": "NotFound",
        "message": "there is no such page",
        "file": None,
        "line": None,
        "field": None,
        "fix": "follow a link of the navigation.",
    }
    return render_page(request, "error.html", {"section": "", "error": value}, status=404)
