"""The table of jobs: filtered, sorted, a page at a time. Only what is shown is computed."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from cloudft.errors import DamagedJob
from cloudft.evaluate.results import EVALUATIONS_FOLDER, HeadlineScore, load_newest_score
from cloudft.storage.side_jobs import without_side_jobs
from cloudft.storage.store import JobRecord
from cloudft.workbench.job_states import KnownJob
from cloudft.workbench.sparkline import Sparkline, draw_sparkline
from cloudft.workbench.text_format import (
    format_known_cost,
    format_score,
    format_seconds,
    format_time,
)

if TYPE_CHECKING:
    from markupsafe import Markup

    from cloudft.workbench.workbench import Workbench

ROWS = 50
MAX_TEXT = 200
STATUS_CLASSES = {"Unknown": "warning"}
"""Of statuses that the style sheet does not know by themselves."""
SORTS: dict[str, str] = {
    "created": "Created",
    "job": "Job",
    "backend": "Backend",
    "status": "Status",
    "loss": "Loss",
    "step": "Step",
    "eta": "Time left",
    "cost": "Cost",
    "score": "Score",
}
"""Key -> heading of each column that sorts."""
RISING = frozenset({"job", "backend", "status", "eta"})
"""Columns that begin with the lowest when they are chosen."""


@dataclass(frozen=True)
class TableQuery:
    """What a page of the table shows. Every field is a parameter of its address."""

    q: str = ""
    backend: str = ""
    status: str = ""
    sort: str = "created"
    order: str = ""
    all: str = ""
    page: int = 1

    @classmethod
    def from_params(cls, params: Mapping[str, str]) -> TableQuery:
        """Return the query of an address. What can't be one is left out."""
        sort = params.get("sort", "created")
        page = params.get("page", "1")
        order = params.get("order", "")
        return cls(
            q=params.get("q", "").strip()[:MAX_TEXT],
            backend=params.get("backend", "")[:MAX_TEXT],
            status=params.get("status", "")[:MAX_TEXT],
            sort=sort if sort in SORTS else "created",
            order=order if order in ("up", "down") else "",
            all="1" if params.get("all") else "",
            page=int(page) if page.isascii() and page.isdecimal() and len(page) < 9 else 1,
        )

    @property
    def is_rising(self) -> bool:
        """Return whether the lowest comes first."""
        return self.order == "up" if self.order else self.sort in RISING

    def to_params(self, **changes: object) -> str:
        """Return the parameters of the address with changes, without those that are not set."""
        changed = replace(self, **changes)  # type: ignore[arg-type]
        default = TableQuery()
        return urlencode({k: v for k, v in vars(changed).items() if v != getattr(default, k)})

    def sorted_by(self, column: str) -> str:
        """Return the parameters of the address that sorts by a column, or turns the order."""
        turned = ("down" if self.is_rising else "up") if column == self.sort else ""
        return self.to_params(sort=column, order=turned, page=1)


@dataclass(frozen=True)
class JobRow:
    """One line of the table, as text."""

    id: str
    name: str
    base_model: str
    backend: str
    status: str
    status_class: str
    note: str
    spark: Markup
    value: str
    step: str
    share: float | None
    eta: str
    cost: str
    score: str
    created: str


@dataclass(frozen=True)
class TablePage:
    """One page of the table. `hidden` jobs are side jobs; `damaged` can't be read."""

    query: TableQuery
    rows: Sequence[JobRow]
    records: Sequence[JobRecord]
    total: int
    pages: int
    statuses: Mapping[str, int]
    backends: Sequence[str]
    hidden: int
    damaged: Sequence[DamagedJob]
    seen_at: float | None


def make_table(workbench: Workbench, query: TableQuery) -> TablePage:
    """Return the page of the table that a query names, or the last one. Raise StoreError."""
    listed = workbench.jobs.list_jobs()
    jobs = [one for one in listed if isinstance(one, KnownJob)]
    shown = jobs if query.all else _without_parts(jobs)
    backends = sorted({known.record.backend for known in shown})
    found = [known for known in shown if _matches(known, query)]
    statuses = Counter(known.status for known in found)
    found = [known for known in found if query.status in ("", known.status)]
    pages = max(1, math.ceil(len(found) / ROWS))
    query = replace(query, page=min(max(1, query.page), pages))
    found = sort_jobs(workbench, found, query)
    visible = found[(query.page - 1) * ROWS : query.page * ROWS]
    return TablePage(
        query=query,
        rows=[make_row(workbench, known) for known in visible],
        records=[known.record for known in visible],
        total=len(found),
        pages=pages,
        statuses=dict(sorted(statuses.items())),
        backends=backends,
        hidden=len(jobs) - len(shown),
        damaged=[one for one in listed if isinstance(one, DamagedJob)],
        seen_at=max((known.seen_at for known in jobs if known.seen_at), default=None),
    )


def make_row(workbench: Workbench, known: KnownJob) -> JobRow:
    """Return the line of a job."""
    record, state = known.record, known.state
    progress = state.progress if state else None
    total = progress.total_steps if progress else 0
    spark = workbench.sparklines.get(record)
    is_running = state is not None and not state.has_ended
    return JobRow(
        id=record.id,
        name=record.name,
        base_model=record.base_model,
        backend=record.backend,
        status=known.status,
        status_class=STATUS_CLASSES.get(known.status, ""),
        note=_note(known),
        spark=draw_sparkline(spark),
        value=_value_text(spark),
        step=f"{progress.step:,} / {total:,}" if progress and total else "",
        share=progress.step / total if progress and total and is_running else None,
        eta=format_seconds(progress.seconds_left) if progress and is_running else "",
        cost=format_known_cost(known),
        score=_score_text(workbench.scores.get(record)),
        created=format_time(record.created_at),
    )


def sort_jobs(workbench: Workbench, jobs: Sequence[KnownJob], query: TableQuery) -> list[KnownJob]:
    """Return jobs in the order of a column; those without a value come last in either order."""
    key = _sort_key(workbench, query.sort)
    keyed = [(key(known), known) for known in jobs]
    having = [(value, known) for value, known in keyed if value is not None]
    having.sort(key=lambda pair: pair[0], reverse=not query.is_rising)
    return [known for _, known in having] + [known for value, known in keyed if value is None]


def _sort_key(workbench: Workbench, column: str) -> Callable[[KnownJob], float | str | None]:
    def loss(known: KnownJob) -> float | None:
        last = workbench.sparklines.get(known.record).last
        return last if last is not None and math.isfinite(last) else None

    def score(known: KnownJob) -> float | None:
        found = workbench.scores.get(known.record)
        return found.tuned.get(found.metric) if found else None

    def cost(known: KnownJob) -> float | None:
        value: float | None = known.job.to_json()["cost"]["usd"] if known.job else None
        return value

    def progress(known: KnownJob) -> float | None:
        found = known.state.progress if known.state else None
        return float(found.step) if found else None

    def eta(known: KnownJob) -> float | None:
        state = known.state
        return state.progress.seconds_left if state and state.progress else None

    keys: dict[str, Callable[[KnownJob], float | str | None]] = {
        "created": lambda known: datetime.fromisoformat(known.record.created_at).timestamp(),
        "job": lambda known: known.record.id.casefold(),
        "backend": lambda known: known.record.backend,
        "status": lambda known: known.status,
        "loss": loss,
        "step": progress,
        "eta": eta,
        "cost": cost,
        "score": score,
    }
    return keys[column]


class Scores:
    """The score of the newest evaluation of each job, read again when there is another one."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, HeadlineScore | None]] = {}

    def get(self, record: JobRecord) -> HeadlineScore | None:
        """Return the score; None for a job that was not evaluated."""
        try:
            changed = (record.folder / EVALUATIONS_FOLDER).stat().st_mtime_ns
        except OSError:
            return None
        known = self._known.get(record.id)
        if known is None or known[0] != changed:
            known = self._known[record.id] = changed, load_newest_score(record.folder)
        return known[1]


def _without_parts(jobs: Sequence[KnownJob]) -> list[KnownJob]:
    """Leave out trials of sweeps, and jobs on parts of others' data, as `cloudft list` does."""
    kept = {record.id for record in without_side_jobs([known.record for known in jobs])}
    return [known for known in jobs if known.record.id in kept]


def _matches(known: KnownJob, query: TableQuery) -> bool:
    record = known.record
    if query.backend not in ("", record.backend):
        return False
    if not query.q:
        return True
    tags = (f"{key}={value}" for key, value in record.tags.items())
    text = " ".join((record.id, record.name, record.base_model, *tags)).casefold()
    return all(word in text for word in query.q.casefold().split())


def _note(known: KnownJob) -> str:
    """Return what explains the status: why it is unknown, what the job does, or why it failed."""
    if known.reason:
        return f"could not look: {known.reason}"
    state = known.state
    if state is None:
        return "looking …"
    if state.failure_message:
        return state.failure_message
    if not state.has_ended and state.progress:
        return state.progress.activity
    return ""


def _value_text(spark: Sparkline) -> str:
    if spark.last is None:
        return ""
    text = f"{spark.last:.4g}" if math.isfinite(spark.last) else "not finite"
    return text if spark.measure == "loss" else f"{spark.measure} {text}"


def _score_text(score: HeadlineScore | None) -> str:
    from cloudft.evaluate.metrics.metric_labels import metric_label

    value = score.tuned.get(score.metric) if score else None
    if score is None or value is None:
        return ""
    return f"{metric_label(score.metric)} {format_score(value)}"
