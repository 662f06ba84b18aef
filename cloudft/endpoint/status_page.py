"""Render the status page at `/`: jobs with their loss curves, models, and the last calls.

The page only reads. It has no script and loads nothing: one HTML file with one style.
"""

from __future__ import annotations

import functools
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.endpoint.call_log import CallLog
from cloudft.endpoint.state import ACCOUNT, Job, Model, ModelDeployment, State
from cloudft.web.design import read_stylesheet

if TYPE_CHECKING:
    from jinja2 import Environment

MAX_ROWS = 50
"""Rows of a table, the newest."""
LATEST_CALLS = 20
CURVE_WIDTH, CURVE_HEIGHT = 150, 36
"""The units of the curve's `viewBox`; the style's `svg.spark` has its size on the page."""


@dataclass(frozen=True)
class LossCurve:
    """A job's training loss. `points` are `x,y` pairs of an SVG polyline."""

    points: str
    first: float
    last: float


@dataclass(frozen=True)
class JobRow:
    """A customization job as the page shows it. `curve` is None before the second step."""

    job: Job
    base_model: str
    customization_type: str
    curve: LossCurve | None


def render_page(state: State, jobs_folder: Path, call_log: CallLog) -> bytes:
    """Return the page as HTML. `jobs_folder` has a folder of each local job."""
    with state.lock:
        jobs = sorted(state.jobs.values(), key=lambda job: job.created, reverse=True)[:MAX_ROWS]
        models: list[Model] = [*state.models.values(), *state.imported.values()][-MAX_ROWS:]
        deployments: list[ModelDeployment] = [
            *state.deployments.values(),
            *state.throughputs.values(),
        ][-MAX_ROWS:]
    # Curves are read from files: not while the lock keeps every request waiting.
    rows = [_job_row(job, jobs_folder) for job in jobs]
    from markupsafe import Markup

    page = _environment().get_template("status_page.html")
    return page.render(
        # Safe without escaping: the style is cloudft's own.
        style=Markup(read_stylesheet()),
        account=ACCOUNT,
        region=state.region,
        jobs=rows,
        models=models,
        deployments=deployments,
        calls=call_log.list_latest(LATEST_CALLS),
        width=CURVE_WIDTH,
        height=CURVE_HEIGHT,
    ).encode()


@functools.cache
def style_hash() -> str:
    """Return the source expression of the page's one style, for its Content-Security-Policy."""
    digest = sha256(read_stylesheet().encode()).digest()
    return f"sha256-{b64encode(digest).decode()}"


@functools.cache
def _environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("cloudft.endpoint"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _job_row(job: Job, jobs_folder: Path) -> JobRow:
    return JobRow(
        job,
        job.base_model_arn.rpartition("/")[2],
        job.request.get("customizationType", "FINE_TUNING"),
        _loss_curve(_read_losses(jobs_folder / job.local)) if job.local else None,
    )


def _read_losses(folder: Path) -> list[float]:
    """Return the training losses so far, from the trainer's own record."""
    from cloudft.backends.local.job_folder import JobFolder

    return [point.loss for point in JobFolder(folder).read_metrics() if point.split == "train"]


def _loss_curve(losses: Sequence[float]) -> LossCurve | None:
    """Return the curve, from 0 at the bottom to the largest loss at the top."""
    if len(losses) < 2:
        return None
    top = max(losses) or 1.0
    step = CURVE_WIDTH / (len(losses) - 1)
    points = (
        # 2 units are left free at the top: half of the line's width would be cut off.
        f"{number * step:.1f},{CURVE_HEIGHT - loss / top * (CURVE_HEIGHT - 2):.1f}"
        for number, loss in enumerate(losses)
    )
    return LossCurve(" ".join(points), losses[0], losses[-1])
