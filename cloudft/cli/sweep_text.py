"""A sweep as text: a line for each trial, the result, and the plan."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft.cli.number_format import format_duration
from cloudft.cli.output import format_table
from cloudft.sweep.folder import SweepFolder
from cloudft.sweep.notes import format_seconds, importance_text, notes
from cloudft.sweep.records import TrialRecord
from cloudft.sweep.result import SweepResult
from cloudft.sweep.table import (
    describe_outcome,
    format_score,
    format_seeds,
    format_value,
    trial_name,
)
from cloudft.sweep.trial_job import TrialFactory

ROWS_SHOWN = 15


def start_line(factory: TrialFactory, folder: SweepFolder) -> str:
    """Return the first line of a sweep that begins or continues."""
    names = ", ".join(parameter.name for parameter in factory.space)
    known = folder.read_result()
    so_far = "" if known is None else f", {len(known.trials)} of them done"
    sweep = factory.staged.job.spec.sweep
    assert sweep is not None
    return f"sweep {folder.path.name}: {sweep.trials} trials over {names}{so_far}"


def trial_line(record: TrialRecord, result: SweepResult) -> str:
    """Return how a run ended, and the best so far."""
    is_repeat = record.seed != result.seed
    name = f"trial {trial_name(record.number)}" + (f", seed {record.seed}" if is_repeat else "")
    values = ", ".join(f"{k} {format_value(v)}" for k, v in record.values.items())
    score = format_score(record)
    ended = score if record.outcome == "complete" else f"{record.outcome} {score}".strip()
    if record.number == result.own and not is_repeat:
        ended += " (own values)"
    best = result.best_trial
    so_far = ""
    if best is not None and best.score is not None:
        so_far = f"  best {best.score:.4f} (trial {trial_name(best.number)})"
    return f"{name}: {ended}{so_far}  {values}  {format_duration(record.seconds)}"


def result_lines(result: SweepResult, files: Mapping[str, str], folder: Path) -> Iterator[str]:
    """Yield the result: the best trials, the verdict, what moves the score, and the files."""
    yield from _table(result)
    yield ""
    if result.status == "out of time":
        yield (
            f"the budget of {result.budget_minutes:g} minutes is used up, after"
            f" {result.trials_done} of {result.planned} trials; a larger one continues the sweep"
        )
    yield f"- {result.verdict.text}"
    yield from (f"- {text}" for text in notes(result))
    yield f"- {importance_text(result)}"
    if result.changes:
        yield ""
        yield "best values:"
        yield from (f"  {field}: {format_value(value)}" for field, value in result.changes.items())
    yield ""
    yield from (f"{kind}: {path}" for kind, path in files.items())
    yield f"folder: {folder}"
    if "jobFile" in files and result.changes:
        yield f"next: `cloudft submit {files['jobFile']} --wait`, then `cloudft evaluate -`"


def _table(result: SweepResult) -> Iterator[str]:
    names = [parameter.name for parameter in result.space]
    ranked = sorted(result.trials, key=lambda one: (not one.is_scored, one.score or 0, one.number))
    means = {one.number: format_seeds(one) for one in result.repeated}
    columns = ["TRIAL", "LOSS", *(["SEEDS"] if means else []), "OUTCOME", *names]
    rows = [
        [
            trial_name(one.number),
            format_score(one),
            *([means.get(one.number, "")] if means else []),
            describe_outcome(one, result),
            *(format_value(one.values.get(name)) for name in names),
        ]
        for one in ranked[:ROWS_SHOWN]
    ]
    yield format_table(columns, rows)
    if len(ranked) > ROWS_SHOWN:
        yield f"... and {len(ranked) - ROWS_SHOWN} more; trials.csv has all"


def plan_lines(value: Mapping[str, Any]) -> Iterator[str]:
    """Yield what a sweep would do."""
    rows = [
        (
            one["name"],
            _range(one),
            format_value(one["own"]) + ("" if one["isOwnInside"] else " (outside)"),
            one["field"],
        )
        for one in value["space"]
    ]
    yield format_table(("PARAMETER", "SPACE", "OWN VALUE", "FIELD"), rows)
    yield ""
    points = "" if value["points"] is None else f" of {value['points']} points"
    budget = value["budgetMinutes"]
    yield f"trials: {value['trials']}{points}, {value['trialsDone']} done" + (
        "" if budget is None else f"; at most {budget:g} minutes of training"
    )
    if value["parallelTrials"] > 1:
        yield f"{value['parallelTrials']} trials at once, which share the cores"
    seeds, best = value["seeds"], value["repeatBest"]
    if seeds:
        yield (
            f"then {seeds} further seed{'s' * (seeds != 1)} for the best"
            f"{f' {best}' if best != 1 else ''} and the job file's own values"
        )
    yield f"score: {value['metric']} of {_held_out(value)}; test data are never used"
    yield _time_left(value["secondsLeft"])
    yield f"folder: {value['folder']}"


def _time_left(seconds: float | None) -> str:
    if seconds is None:
        return (
            "time: not known before a trial is complete; `cloudft estimate --probe` times a run of"
            " the job file's own values"
        )
    return f"time: at most about {format_seconds(seconds)} left, by the mean of the complete trials"


def _held_out(value: Mapping[str, Any]) -> str:
    records = {k: n for k, n in value["records"].items() if k.startswith("validation")}
    return f"{sum(records.values()):,} records"


def _range(one: Mapping[str, Any]) -> str:
    if one["values"]:
        return ", ".join(format_value(value) for value in one["values"])
    return f"{one['low']:g} to {one['high']:g}" + (", by factors" if one["log"] else "")
