"""The page at `/`: jobs with their curves, models, and the last requests. It only reads."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Iterator, Sequence
from hashlib import sha256
from html import escape
from itertools import islice
from pathlib import Path

from cloudft.endpoint.protocols.messages import OperationCall
from cloudft.endpoint.state import ACCOUNT, Job, State

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: #1c2530; background: #fff }
h1 { font-size: 1.4rem } h2 { font-size: 1.05rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #e3e7ec;
  vertical-align: middle; overflow-wrap: anywhere }
th { font-weight: 600; font-size: .85rem; color: #5a6675 }
.Completed, .Active { color: #17693a } .Failed { color: #b3261e } .Stopped { color: #7a5b00 }
svg { width: 150px; height: 36px } polyline { fill: none; stroke: #2a6fdb; stroke-width: 1.5 }
.none { color: #5a6675 }
@media (prefers-color-scheme: dark) { body { color: #dfe5ec; background: #14181d }
  th, td { border-color: #2c343d } th, .none { color: #9aa7b5 }
  .Completed, .Active { color: #6fcf97 }
  .Failed { color: #ff8a80 } .Stopped { color: #e5c158 } polyline { stroke: #7fb0ff } }
"""
STYLE_HASH = f"sha256-{b64encode(sha256(STYLE.encode()).digest()).decode()}"
"""How the page's Content-Security-Policy names its one style."""
MAX_ROWS = 50


def render_page(state: State, curves: Path, calls: Sequence[OperationCall]) -> bytes:
    """The page as HTML. `curves` has a folder of each local job."""
    with state.lock:
        jobs = sorted(state.jobs.values(), key=lambda job: job.created, reverse=True)[:MAX_ROWS]
        models = [
            [m.name, m.arn, f"{m.created:%Y-%m-%d %H:%M:%S}"]
            for m in (*state.models.values(), *state.imported.values())
        ][-MAX_ROWS:]
        servings = [
            [s.name, s.arn, s.model_arn]
            for s in (*state.deployments.values(), *state.throughputs.values())
        ][-MAX_ROWS:]
    rows = [_job_row(job, curves) for job in jobs]  # reads files: not behind the lock
    asked = [[call.service, call.operation] for call in islice(reversed(calls), 20)]
    parts = [
        "<!doctype html><html lang='en'><meta charset='utf-8'>",
        "<meta name='viewport' content='width=device-width'>",
        "<meta http-equiv='refresh' content='3'><title>cloudft endpoint</title>",
        f"<style>{STYLE}</style><h1>cloudft endpoint</h1>",
        f"<p>This is not AWS. Account {ACCOUNT}, Region {escape(state.region)}.</p>",
        _table("Customization jobs", ["Job", "Model", "Type", "Status", "Loss", "Created"], rows),
        _table("Models", ["Name", "ARN", "Created"], _cells(models)),
        _table("Serving", ["Name", "ARN", "Model"], _cells(servings)),
        _table("Last requests", ["Service", "Operation"], _cells(asked)),
    ]
    return "\n".join(parts).encode()


def _job_row(job: Job, curves: Path) -> list[str]:
    why = f"<br><small>{escape(job.failure)}</small>" if job.failure else ""
    kind = job.request.get("customizationType", "FINE_TUNING")
    cells = [
        escape(job.name),
        escape(job.base_model_arn.rpartition("/")[2]),
        escape(kind),
        f"<span class='{escape(job.status)}'>{escape(job.status)}</span>{why}",
        _loss_curve(list(_read_losses(curves / job.local)) if job.local else []),
        f"{job.created:%Y-%m-%d %H:%M:%S}",
    ]
    return cells


def _read_losses(folder: Path) -> Iterator[float]:
    """The training losses so far, from the trainer's own record."""
    from cloudft.backends.local.job_folder import JobFolder

    yield from (point.loss for point in JobFolder(folder).read_metrics() if point.split == "train")


def _loss_curve(losses: list[float]) -> str:
    """A small picture of the losses."""
    if len(losses) < 2:
        return "<span class='none'>none yet</span>"
    top = max(losses) or 1.0
    width, height = 150.0, 36.0
    step = width / (len(losses) - 1)
    dots = " ".join(
        f"{number * step:.1f},{height - loss / top * (height - 2):.1f}"
        for number, loss in enumerate(losses)
    )
    words = f"loss from {losses[0]:.2f} to {losses[-1]:.2f}"
    return (
        f"<svg viewBox='0 0 150 36' role='img' aria-label='{words}'><title>{words}</title>"
        f"<polyline points='{dots}'/></svg> {losses[-1]:.3f}"
    )


def _cells(rows: Iterable[Iterable[str]]) -> list[list[str]]:
    return [[escape(str(cell)) for cell in row] for row in rows]


def _table(title: str, heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if not rows:
        return f"<h2>{title}</h2><p class='none'>none</p>"
    head = "".join(f"<th scope='col'>{name}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows)
    return f"<h2>{title}</h2><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
