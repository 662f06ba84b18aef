"""A sweep's trials as a table: rows for people, and trials.csv."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cloudft.data.staging.spreadsheet_csv import to_spreadsheet_csv
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.sweep.records import OWN_VALUES, TrialRecord, Value
from cloudft.sweep.result import Repeated, SweepResult

COLUMNS = ("trial", "seed", "outcome", "score", "seconds", "steps_done", "same_as", "job")


def trial_name(number: int) -> str:
    """Return how a trial is named: by its number; the job file's own values by a word."""
    return "own" if number == OWN_VALUES else str(number)


def format_value(value: Value | None) -> str:
    """Return a parameter's value as people write it."""
    if value is None:
        return ""
    if isinstance(value, float) and not isinstance(value, bool):
        return f"{value:.6g}"
    return str(value).lower() if isinstance(value, bool) else str(value)


def format_score(record: TrialRecord) -> str:
    """Return a trial's score; of one that was stopped, its best so far in brackets."""
    if record.score is not None:
        return f"{record.score:.4f}"
    losses = [point.loss for point in record.points]
    return f"({min(losses):.4f})" if losses else ""


def format_seeds(repeated: Repeated) -> str:
    """Return the mean of a trial's seeds, and their lowest and highest score."""
    scores = repeated.scores.values()
    return f"{repeated.mean:.4f} ({min(scores):.4f} to {max(scores):.4f})"


def describe_outcome(record: TrialRecord, result: SweepResult) -> str:
    """Return a trial's outcome, and what it is beside that."""
    notes = [f"same as {trial_name(record.same_as)}"] if record.same_as is not None else []
    if record.number == result.best:
        notes.append("best")
    if record.number == result.own:
        notes.append("own values")
    return ", ".join([record.outcome, *notes])


def write_csv(result: SweepResult, to: Path) -> None:
    """Write all runs, those with further seeds too. Raise StoreError."""
    names = [parameter.name for parameter in result.space]
    rows: list[dict[str, object]] = [
        {
            "trial": trial_name(one.number),
            "seed": one.seed,
            "outcome": one.outcome,
            "score": one.score,
            "seconds": one.seconds,
            "steps_done": round(one.done, 4),
            "same_as": "" if one.same_as is None else trial_name(one.same_as),
            "job": one.job or "",
            **{name: one.values.get(name, "") for name in names},
        }
        for one in _runs(result)
    ]
    with as_store_error("the table can't be written", to):
        atomic_write(to, to_spreadsheet_csv([*COLUMNS, *names], rows).encode())


def _runs(result: SweepResult) -> Sequence[TrialRecord]:
    return (*result.trials, *result.repeats)
