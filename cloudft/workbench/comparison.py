"""What the compare page shows of some jobs: their settings, and their leaderboards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.errors import UsageError
from cloudft.evaluate.leaderboards import (
    Board,
    Leaderboards,
    load_evaluated_job,
    make_leaderboards,
)
from cloudft.evaluate.metrics.metric_labels import metric_label
from cloudft.evaluate.results import EvaluationWarning
from cloudft.jobs.setting_differences import (
    GROUPS,
    Group,
    SettingRow,
    compare_settings,
    group_repeats,
)
from cloudft.storage.store import JobRecord, Store
from cloudft.types import JobState
from cloudft.workbench.chart import COLORS
from cloudft.workbench.job_choices import list_choices
from cloudft.workbench.job_states import JobStates, KnownJob

MAX_JOBS = 16
"""Jobs of one comparison: of more, curves have the same colors."""
MAX_LISTED = 200
"""Jobs that can be picked from, the newest; others are named in the address."""
SHOWN_CHARACTERS = 80
"""Characters of a setting that are shown before the rest is folded."""
DIGEST_CHARACTERS = 12


@dataclass(frozen=True)
class ComparedJob:
    """A job of a comparison. `color` is the number of its curve's color, from 1."""

    record: JobRecord
    state: JobState | None
    color: int

    @property
    def is_running(self) -> bool:
        """Return whether its curve may still grow."""
        return self.state is not None and not self.state.has_ended


@dataclass(frozen=True)
class SettingCell:
    """A value as it is shown: `text`, its `rest` that is folded, and whether the first differs."""

    text: str
    rest: str = ""
    is_missing: bool = False
    is_code: bool = False
    is_changed: bool = False


@dataclass(frozen=True)
class SettingTable:
    """The settings of one group: rows of a name and a cell for each job."""

    group: Group
    rows: tuple[tuple[str, tuple[SettingCell, ...]], ...]


@dataclass(frozen=True)
class BoardRow:
    """A model on a board. `low_share` and the others are positions on a scale of the board."""

    name: str
    engine: str | None
    color: int | None
    is_first: bool
    score: float
    low: float | None
    high: float | None
    usd: float | None
    seconds: float | None
    sentence: str | None
    score_share: float
    low_share: float
    high_share: float


@dataclass(frozen=True)
class BoardView:
    """A board with what its table needs."""

    board: Board
    metric: str
    rows: tuple[BoardRow, ...]


def find_jobs(store: Store, references: Sequence[str]) -> list[JobRecord]:
    """Return the jobs that are named by id, prefix or name, each once.

    Raise JobNotFound, and UsageError for too many.
    """
    names = dict.fromkeys(name for name in references if name)
    found = {record.id: record for record in map(store.find_by_reference, names)}
    if len(found) > MAX_JOBS:
        raise UsageError(
            f"{len(found)} jobs are too many for one comparison",
            fix=f"pick at most {MAX_JOBS} jobs.",
        )
    return list(found.values())


def list_picks(states: JobStates, chosen: Sequence[ComparedJob]) -> list[JobRecord]:
    """Return the jobs that can be picked: the chosen ones, then the newest others."""
    records = [job.record for job in chosen]
    ids = {record.id for record in records}
    others = [job.record for job in list_choices(states) if job.record.id not in ids]
    return [*records, *others[:MAX_LISTED]]


def read_compared_jobs(records: Sequence[JobRecord], states: JobStates) -> list[ComparedJob]:
    """Return the jobs with what is known of their states now, and a color for each."""
    states.look_at_clouds(records)
    return [
        ComparedJob(record, _known_state(record, states), number % COLORS + 1)
        for number, record in enumerate(records)
    ]


def _known_state(record: JobRecord, states: JobStates) -> JobState | None:
    """Return a job's state; None for one that is damaged, or that was not described yet."""
    known = states.known_job(record)
    return known.state if isinstance(known, KnownJob) else None


def setting_tables(jobs: Sequence[ComparedJob]) -> tuple[list[SettingTable], list[SettingTable]]:
    """Return the settings that differ, and those that are the same for all, by group."""
    summaries = [job.state.summary if job.state else {} for job in jobs]
    rows = compare_settings([job.record for job in jobs], summaries)
    return (
        _tables([row for row in rows if row.differs]),
        _tables([row for row in rows if not row.differs]),
    )


def _tables(rows: Sequence[SettingRow]) -> list[SettingTable]:
    tables = [
        SettingTable(group, tuple((row.name, _cells(row)) for row in rows if row.group == group))
        for group in GROUPS
    ]
    return [table for table in tables if table.rows]


def _cells(row: SettingRow) -> tuple[SettingCell, ...]:
    return tuple(_cell(row.name, value, row.values[0]) for value in row.values)


def _cell(name: str, value: Any, first: Any) -> SettingCell:
    is_changed = value != first
    if value is None:
        return SettingCell("", is_missing=True, is_changed=is_changed)
    text = format_setting(value)
    is_digest = name.rpartition(".")[2] == "sha256"
    shown = DIGEST_CHARACTERS if is_digest else SHOWN_CHARACTERS
    return SettingCell(text[:shown], text[shown:], is_code=is_digest, is_changed=is_changed)


def format_setting(value: Any) -> str:
    """Return a setting as one text, as a job file would have it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, list | tuple):
        return ", ".join(format_setting(one) for one in value)
    return str(value)


def rank_jobs(jobs: Sequence[ComparedJob]) -> tuple[Leaderboards, list[EvaluationWarning]]:
    """Return the leaderboards of some jobs, and what of their evaluations can't be read."""
    evaluated = [
        load_evaluated_job(job.record, job.state.ended_at if job.state else None) for job in jobs
    ]
    repeats = [
        [record.id for record in group] for group in group_repeats([job.record for job in jobs])
    ]
    warnings = [warning for job in evaluated for warning in job.warnings]
    return make_leaderboards(evaluated, repeats), warnings


def view_board(board: Board, jobs: Sequence[ComparedJob]) -> BoardView:
    """Return a board's rows, the best first, with positions on the scale of its intervals."""
    colors = {job.record.id: job.color for job in jobs}
    ranked = board.report["leaderboard"]
    ends = [
        value
        for row in ranked
        for value in (row["low"], row["score"], row["high"])
        if value is not None
    ]
    lowest, span = min(ends), (max(ends) - min(ends)) or 1.0

    def share(value: float | None, other: float) -> float:
        return ((other if value is None else value) - lowest) / span

    rows = [
        BoardRow(
            row["name"],
            row["engine"],
            colors.get(row["name"]),
            row["name"] == board.jobs[0],
            row["score"],
            row["low"],
            row["high"],
            row["usd"],
            row["seconds"],
            board.comparison_of(row["name"]),
            share(row["score"], row["score"]),
            share(row["low"], row["score"]),
            share(row["high"], row["score"]),
        )
        for row in ranked
    ]
    return BoardView(board, metric_label(board.report["metric"]), tuple(rows))
