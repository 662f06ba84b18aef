"""Combine a job's evaluations: a new one adds to what older ones found, and replaces the same."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from cloudft.errors import DamagedJob, JobStateConflict
from cloudft.evaluate.results import (
    EVALUATIONS_FOLDER,
    DiagnosticResult,
    EarlierScore,
    Evaluation,
    EvaluationWarning,
    SuiteResult,
    describe_engine,
    load_evaluation,
)

OF_MODEL = frozenset({"forgetting", "overfitting", "data"})
"""Diagnostics of the model; the others are of its answers to one task's held-out records."""


def load_evaluations(job_folder: Path) -> tuple[list[Evaluation], list[EvaluationWarning]]:
    """Return a job's evaluations, the newest first, and a warning for each that can't be read.

    Raises JobStateConflict when there is none, DamagedJob when none can be read.
    """
    files = sorted((job_folder / EVALUATIONS_FOLDER).glob("*.json"), reverse=True)
    if not files:
        raise JobStateConflict(
            f"{job_folder.name} has not been evaluated yet",
            fix=f"cloudft evaluate {job_folder.name}",
        )
    evaluations: list[Evaluation] = []
    warnings: list[EvaluationWarning] = []
    damage: DamagedJob | None = None
    for path in files:
        try:
            evaluations.append(load_evaluation(path))
        except DamagedJob as error:
            damage = damage or error
            message = f"an evaluation is left out: {error.message}"
            warnings.append({"code": "DamagedEvaluation", "message": message})
    if damage is not None and not evaluations:
        raise damage
    return evaluations, warnings


def load_combined_evaluation(job_folder: Path) -> Evaluation:
    """Return the newest evaluation, with what older ones found and it did not look for.

    See `combine_evaluations`. Raises what `load_evaluations` does.
    """
    evaluations, warnings = load_evaluations(job_folder)
    combined = combine_evaluations(evaluations)
    return {**combined, "warnings": [*combined["warnings"], *warnings]}


def combine_evaluations(evaluations: Sequence[Evaluation]) -> Evaluation:
    """Return the first evaluation with additions from the others, which are older, newest first.

    Of the same models these are diagnostics and suites by their names, diagnostics of answers only
    for the same task; each gets `evaluatedAt`, and `otherRecords` where it is of other held-out
    records. Scores on other records, of another task or by another engine become `earlier`.
    """
    newest = evaluations[0]
    diagnostics = dict(newest.get("pitfalls", {}))
    suites = list(newest.get("suites", []))
    earlier: dict[tuple[str, str, str | None], EarlierScore] = {}
    for older in evaluations[1:]:
        source = _source(newest, older)
        if _is_same_models(newest, older):
            diagnostics |= _missing_diagnostics(newest, older, diagnostics, source)
            known = {suite["suite"] for suite in suites}
            suites += [
                cast(SuiteResult, {**suite, "evaluatedAt": source["evaluatedAt"]})
                for suite in older.get("suites", [])
                if suite["suite"] not in known
            ]
        key = _judged_by(older)
        if key != _judged_by(newest):
            earlier.setdefault(key, _summarize(older))
    combined: Evaluation = {**newest, "pitfalls": diagnostics}
    if suites:
        combined["suites"] = suites
    if earlier:
        combined["earlier"] = list(earlier.values())
    return combined


def _judged_by(evaluation: Evaluation) -> tuple[str, str, str | None]:
    """Return what makes two scores of a job the same measurement: records, task and engine."""
    return evaluation["data"]["sha256"], evaluation["task"], describe_engine(evaluation)


def _source(newest: Evaluation, older: Evaluation) -> Mapping[str, object]:
    source: dict[str, object] = {"evaluatedAt": older.get("createdAt")}
    if older["data"]["sha256"] != newest["data"]["sha256"]:
        source["otherRecords"] = True
    return source


def _missing_diagnostics(
    newest: Evaluation,
    older: Evaluation,
    known: Mapping[str, DiagnosticResult],
    source: Mapping[str, object],
) -> dict[str, DiagnosticResult]:
    return {
        name: cast(DiagnosticResult, {**diagnostic, **source})
        for name, diagnostic in older.get("pitfalls", {}).items()
        if name not in known and (name in OF_MODEL or older["task"] == newest["task"])
    }


def _is_same_models(newest: Evaluation, older: Evaluation) -> bool:
    """Return whether two evaluations are of the same weights, as far as is known.

    Answers of another tool are of unknown models, which are taken for the job's.
    """
    first, second = (x.get("identities") or {} for x in (newest, older))
    pairs = [(first.get(name), second.get(name)) for name in ("base", "tuned")]
    return all(a == b for a, b in pairs if a is not None and b is not None)


def _summarize(evaluation: Evaluation) -> EarlierScore:
    metric = evaluation["metric"]
    return {
        "evaluatedAt": evaluation.get("createdAt"),
        "data": evaluation["data"],
        "task": evaluation["task"],
        "n": evaluation["n"],
        "metric": metric,
        "base": evaluation["base"].get(metric),
        "tuned": evaluation["tuned"].get(metric),
        "delta": evaluation["delta"][metric],
        "engine": describe_engine(evaluation),
    }


def choose_evaluations(candidates: Sequence[Sequence[Evaluation]]) -> list[Evaluation]:
    """Return for each model which of its evaluations, newest first, to compare with the others'.

    These are the newest on the same held-out records by the same metric; without any, those with
    the most records in common; without any of those, the newest.
    """
    best, most = [evaluations[0] for evaluations in candidates], 0
    for first in candidates[0]:
        chosen = [first, *_find_matches(first, candidates[1:])]
        if len(chosen) < len(candidates):
            continue
        if len({evaluation["data"]["sha256"] for evaluation in chosen}) == 1:
            return chosen
        common = len(set.intersection(*map(_record_keys, chosen)))
        if common > most:
            best, most = chosen, common
    return best


def _find_matches(
    first: Evaluation, candidates: Sequence[Sequence[Evaluation]]
) -> Iterator[Evaluation]:
    """Yield from each list the evaluation by the same metric that has most of the same records."""
    wanted = _record_keys(first)
    for evaluations in candidates:
        same = [one for one in evaluations if one["metric"] == first["metric"]]
        if same:
            yield max(
                same,
                key=lambda one: (
                    one["data"]["sha256"] == first["data"]["sha256"],
                    len(wanted & _record_keys(one)),
                ),
            )


def _record_keys(evaluation: Evaluation) -> set[str]:
    return {record["key"] for record in evaluation["records"]}
