"""Sweeps: all of them, and one with its trials, live while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloudft.errors import JobNotFound
from cloudft.sweep.folder import RESULT_FILE, SweepFolder, list_sweeps, open_sweep
from cloudft.sweep.notes import importance_text, notes
from cloudft.sweep.result import SweepResult
from cloudft.sweep.table import (
    describe_outcome,
    format_score,
    format_seeds,
    format_value,
    trial_name,
)
from cloudft.workbench.events import Events, stream_events
from cloudft.workbench.parallel_coordinates import draw_parallel_coordinates
from cloudft.workbench.rendering import render_page, render_part
from cloudft.workbench.workbench import workbench_of

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute


def routes() -> list[BaseRoute]:
    """Return the routes of these pages."""
    from starlette.routing import Route

    return [
        Route("/sweeps", show_sweeps),
        Route("/sweeps/{name}", show_sweep),
        Route("/live/sweeps/{name}", follow_sweep),
    ]


def show_sweeps(request: Request) -> Response:
    """Show every sweep, newest first."""
    home = workbench_of(request).home
    found = list(list_sweeps(home))
    values = {
        "section": "sweeps",
        "sweeps": [
            {"result": one, "is_running": SweepFolder(home.sweeps / one.id).is_running}
            for one in found
            if isinstance(one, SweepResult)
        ],
        "damaged": [one for one in found if not isinstance(one, SweepResult)],
        **_functions(),
    }
    return render_page(request, "sweeps.html", values)


def show_sweep(request: Request) -> Response:
    """Show one sweep: its best, what moves the score, and its trials."""
    return render_page(request, "sweep.html", _values(_folder(request)))


def follow_sweep(request: Request) -> Response:
    """Send the sweep again whenever it changes, until nobody works on it."""
    folder = _folder(request)
    return stream_events(
        request, _look(folder, lambda: render_part(request, "sweep_result.html", _values(folder)))
    )


def _look(folder: SweepFolder, render: Callable[[], str]) -> Callable[[], Events | None]:
    path, seen, has_ended = folder.path / RESULT_FILE, [0], [False]

    def look() -> Events | None:
        if has_ended[0]:
            return None
        # In this order: what is written last is sent too.
        has_ended[0] = not folder.is_running
        try:
            changed = path.stat().st_mtime_ns
        except OSError:
            return {}
        if changed == seen[0] and not has_ended[0]:
            return {}
        seen[0] = changed
        return {"sweep": render()}

    return look


def _folder(request: Request) -> SweepFolder:
    return open_sweep(workbench_of(request).home, str(request.path_params["name"]))


def _values(folder: SweepFolder) -> Mapping[str, Any]:
    result = folder.read_result()
    if result is None:
        raise JobNotFound(
            f"the sweep {folder.path.name} has no trial yet", fix="open the page again in a moment."
        )
    ranked = sorted(result.trials, key=lambda one: (not one.is_scored, one.score or 0, one.number))
    return {
        "section": "sweeps",
        "result": result,
        "is_running": folder.is_running,
        "ranked": ranked,
        "repeated": {one.number: one for one in result.repeated},
        "notes": list(notes(result)),
        "importance": importance_text(result),
        "drawing": draw_parallel_coordinates(result),
        "folder": str(folder.path),
        **_functions(),
    }


def _functions() -> Mapping[str, object]:
    return {
        "trial_name": trial_name,
        "format_value": format_value,
        "format_trial": format_score,
        "format_seeds": format_seeds,
        "describe": describe_outcome,
    }
