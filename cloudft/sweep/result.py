"""What the trials of a sweep amount to: the best, its gain over the job file, and how sure that is.

The best is chosen by its first run, which may have been a lucky one. So the gain is measured by the
runs with further seeds alone, of the best and of the job file's own values, and is compared with
the spread between seeds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from cloudft.sweep.importance import Importance
from cloudft.sweep.records import OWN_VALUES, TrialRecord, Value
from cloudft.sweep.space import SpaceParameter

VERSION = 1
Status = Literal["running", "interrupted", "out of time", "finished"]


class ParameterView(msgspec.Struct, rename="camel"):
    """A parameter as pages and files show it."""

    name: str
    field: str
    kind: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    values: list[Value] = []


class Repeated(msgspec.Struct, rename="camel"):
    """A trial's score for each seed; the first one is that of the search."""

    number: int
    scores: dict[str, float]
    mean: float
    spread: float


class Edge(msgspec.Struct, rename="camel"):
    """A parameter whose best value lies on the edge of its range."""

    name: str
    value: Value
    side: Literal["low", "high"]


class Verdict(msgspec.Struct, rename="camel"):
    """The best against the job file's own values.

    `gain` is positive where the best is better; `spread` is the larger of the two spreads between
    seeds. `is_clear` is None where nothing was repeated.
    """

    text: str
    gain: float | None = None
    spread: float | None = None
    is_clear: bool | None = None


class PruningView(msgspec.Struct, rename="camel"):
    """How many trials were stopped, and what that saved against the mean of the complete ones."""

    trials: int
    saved_seconds: float


class SweepResult(msgspec.Struct, rename="camel"):
    """The file result.json."""

    version: int
    id: str
    name: str
    status: Status
    created_at: str
    updated_at: str
    job_file: str | None
    metric: str
    seed: int
    planned: int
    budget_minutes: float | None
    space: list[ParameterView]
    trials: list[TrialRecord]
    own: int | None
    best: int | None
    repeats: list[TrialRecord]
    repeated: list[Repeated]
    verdict: Verdict
    edges: list[Edge]
    importance: Importance
    pruning: PruningView
    seconds: float
    changes: dict[str, Value] = {}

    def trial(self, number: int | None) -> TrialRecord | None:
        """Return a trial by its number."""
        return next((one for one in self.trials if one.number == number), None)

    @property
    def best_trial(self) -> TrialRecord | None:
        """Return the best trial."""
        return self.trial(self.best)

    @property
    def trials_done(self) -> int:
        """Return how many of the planned trials have ended: a point drawn twice counts once."""
        return sum(one.outcome != "running" and one.same_as is None for one in self.trials)

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON data."""
        value: dict[str, Any] = msgspec.to_builtins(self)
        return value


def describe_space(space: Sequence[SpaceParameter]) -> list[ParameterView]:
    """Return the parameters as they are shown."""
    return [
        ParameterView(p.name, p.dotted, p.kind, p.low, p.high, p.log, list(p.values)) for p in space
    ]


def rank_trials(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials with a score of their own, the best first."""
    scored = [one for one in trials if one.is_scored]
    return sorted(scored, key=lambda one: (one.score, one.number))


def find_own(trials: Sequence[TrialRecord], own: Mapping[str, Value | None]) -> TrialRecord | None:
    """Return the trial with the job file's own values."""
    for one in trials:
        if one.number == OWN_VALUES or (one.values == own and one.same_as is None):
            return one
    return None


def summarize_repeats(
    trials: Sequence[TrialRecord], repeats: Sequence[TrialRecord]
) -> list[Repeated]:
    """Return the scores by seed of each trial that was repeated, the lowest mean first."""
    found = []
    for one in trials:
        runs = [r for r in repeats if r.number == one.number]
        further = {str(r.seed): r.score for r in runs if r.score is not None}
        # Values that diverge with another seed are no choice, however good they were with one.
        is_stable = all(r.outcome != "diverged" for r in runs)
        if further and is_stable and one.score is not None:
            scores = {str(one.seed): one.score} | further
            values = list(scores.values())
            mean = statistics.fmean(values)
            found.append(Repeated(one.number, scores, mean, max(values) - min(values)))
    return sorted(found, key=lambda r: (r.mean, r.number))


def choose_best(trials: Sequence[TrialRecord], repeated: Sequence[Repeated]) -> TrialRecord | None:
    """Return the best trial: of those that were repeated by their mean, else by the only score."""
    ranked = rank_trials(trials)
    if repeated:
        return next(one for one in ranked if one.number == repeated[0].number)
    return ranked[0] if ranked else None


def judge(
    best: TrialRecord | None, own: TrialRecord | None, repeated: Sequence[Repeated]
) -> Verdict:
    """Compare the best with the job file's own values."""
    if best is None:
        return Verdict("no trial has a score yet")
    if own is None or own.score is None:
        why = "were not trained" if own is None else f"have no score: their run {own.outcome}"
        return Verdict(f"the job file's own values {why}, so there is no gain to name")
    if own.number == best.number:
        return Verdict("nothing that was tried is better than the job file's own values")
    of = {one.number: one for one in repeated}
    if best.number not in of or own.number not in of:
        assert best.score is not None
        gain = own.score - best.score
        text = f"the best is {gain:.4f} lower than the job file's own values, by one run of each"
        return Verdict(f"{text}: without further seeds that may be chance", gain)
    gain = _further_mean(of[own.number], own.seed) - _further_mean(of[best.number], best.seed)
    spread = max(of[own.number].spread, of[best.number].spread)
    seeds = len(of[best.number].scores) - 1
    basis = f"by the mean of {seeds} further seeds, and the spread between seeds is {spread:.4f}"
    if gain > spread:
        text = f"the best is {gain:.4f} lower than the job file's own values {basis}"
        return Verdict(text, gain, spread, is_clear=True)
    differs = f"{gain:.4f} lower" if gain >= 0 else f"{-gain:.4f} higher"
    text = (
        f"the spread between seeds is larger than the gain: the best is {differs} than the job"
        f" file's own values {basis}. Another seed moves the loss as much as these values do"
    )
    return Verdict(text, gain, spread, is_clear=False)


def _further_mean(repeated: Repeated, first_seed: int) -> float:
    """Return the mean without the run by which the trial was chosen."""
    return statistics.fmean(v for seed, v in repeated.scores.items() if seed != str(first_seed))


def find_edges(space: Sequence[SpaceParameter], best: TrialRecord | None) -> list[Edge]:
    """Return the parameters whose best value lies on the edge of their range."""
    edges = []
    for parameter in space if best is not None else ():
        assert best is not None
        value = best.values.get(parameter.name)
        side = None if value is None else parameter.edge(value)
        if value is not None and side is not None:
            edges.append(Edge(parameter.name, value, side))
    return edges


def estimate_seconds_left(
    result: SweepResult, *, trials: int, repeats: int, budget_minutes: float | None
) -> float | None:
    """Return how much training is left at most, by the mean of the complete trials.

    None before one is complete. Trials that will be stopped early take less. `repeats` is the
    number of runs with further seeds, `trials` that of all trials.
    """
    whole = [one.seconds for one in result.trials if one.is_scored]
    if not whole:
        return None
    runs = max(0, trials - result.trials_done) + max(0, repeats - len(result.repeats))
    seconds = runs * statistics.fmean(whole)
    if budget_minutes is not None:
        seconds = min(seconds, max(0.0, 60 * budget_minutes - result.seconds))
    return round(seconds, 1)


def summarize_pruning(trials: Sequence[TrialRecord]) -> PruningView:
    """Return how many trials were stopped, and about how long the rest of them would have taken."""
    pruned = [one for one in trials if one.outcome == "pruned"]
    whole = [one.seconds for one in trials if one.is_scored]
    mean = statistics.fmean(whole) if whole else 0.0
    saved = sum(max(0.0, mean - one.seconds) for one in pruned)
    return PruningView(len(pruned), round(saved, 1))
