"""Evaluation results: their types, and the files that hold them in the job's folder.

CLOUDFT_HOME/jobs/ID/evaluations/TIME-DIGEST.json

The types are the JSON documents themselves (`cloudft evaluate --output json`, and these files), so
their keys are spelled as there. A class that ends in `Fields` holds the keys that a file may lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict

import msgspec
import orjson

from cloudft.errors import BadDocument
from cloudft.storage.atomic_files import as_store_error, atomic_write
from cloudft.storage.documents import Count, decode
from cloudft.storage.store import as_damaged_job

if TYPE_CHECKING:
    from cloudft.evaluate.held_out import EvalExample

EVALUATIONS_FOLDER = "evaluations"
FORMAT_VERSION = 1
REWARD_TASK = "reward"
"""The task whose score is a grader's reward."""
LANGUAGE_MODELING_TASK = "language-modelling"
PREFERENCE_TASK = "preference"
"""The task whose records have no answers. Spelled as in the files."""


class Delta(TypedDict):
    """A difference of tuned minus base, with its 95 % interval. See `make_delta`."""

    value: float | None
    low: float | None
    high: float | None


def make_delta(value: float | None, interval: tuple[float, float] | None) -> Delta:
    """Return a difference with its interval, which always holds it, or without one."""
    if value is None or interval is None:
        return {"value": value, "low": None, "high": None}
    # The same figure, summed in another order, differs in its last digits.
    return {"value": value, "low": min(interval[0], value), "high": max(interval[1], value)}


class Effect(TypedDict):
    """An effect size, by name."""

    name: str
    value: float | None


class Significance(TypedDict):
    """The test of the headline metric; `fixed` and `broken` count records."""

    test: str
    pValue: float
    effect: Effect
    fixed: int | None
    broken: int | None
    verdict: str
    sentence: str


class Confusion(TypedDict):
    """Confusion matrices of both models: rows are the right labels, columns the answers."""

    labels: list[str]
    base: list[list[Count]]
    tuned: list[list[Count]]


class Slice(TypedDict):
    """The scores of the records that share a label or a range of lengths."""

    by: str
    value: str
    n: Count
    base: float | None
    tuned: float | None
    delta: Delta


class _SuiteFields(TypedDict, total=False):
    evaluatedAt: str | None
    higherIsBetter: bool | None
    pValue: float
    verdict: str
    sentence: str
    unscored: dict[str, Count]


class SuiteResult(_SuiteFields):
    """One figure of an lm-eval task, or one metric of a judge, for both models.

    `unscored` counts the answers that the judge did not score.
    """

    suite: str
    figure: str
    n: Count
    base: float | None
    tuned: float | None
    delta: Delta


class _DiagnosticFields(TypedDict, total=False):
    evaluatedAt: str | None
    otherRecords: bool


class DiagnosticResult(_DiagnosticFields):
    """A diagnostic as it is saved. Its own numbers are further keys.

    One that an earlier evaluation found has its time, `evaluatedAt`.
    """

    level: Literal["good", "warning", "bad"]
    sentence: str


class EvaluationWarning(TypedDict):
    """A reason why the figures may be misleading."""

    code: str
    message: str


class _DataFields(TypedDict, total=False):
    files: list[str]


class DataSummary(_DataFields):
    """The held-out data: `role` is `given`, `test` or `validation`."""

    sha256: str
    role: str


class JudgmentSummary(TypedDict):
    """What a judge says about an answer; `score` is None where it gives none."""

    score: float | None
    explanation: str


class _ScoredFields(TypedDict, total=False):
    judged: dict[str, JudgmentSummary]
    text: str | None
    correct: bool | None
    tokens: int
    finishReason: str
    logLikelihood: float | None
    referenceTokens: int | None
    bytes: int


class ScoredAnswer(_ScoredFields):
    """One model's answer to one record, or its log-likelihood of a document (without `text`)."""

    score: float


class _RecordFields(TypedDict, total=False):
    index: int


class EvaluatedRecord(_RecordFields):
    """One held-out record with the results of both models. `line` counts from 1."""

    key: str
    file: str
    line: int
    prompt: str
    reference: str
    base: ScoredAnswer
    tuned: ScoredAnswer


def make_record(
    index: int, example: EvalExample, base: ScoredAnswer, tuned: ScoredAnswer
) -> EvaluatedRecord:
    """Return the results of both models on the held-out record number `index`."""
    return {
        "index": index,
        "key": example.key,
        "file": example.file,
        "line": example.line,
        "prompt": example.input_text,
        "reference": example.reference,
        "base": base,
        "tuned": tuned,
    }


class OmittedMetric(TypedDict):
    """A metric that means nothing for these records, and why."""

    metric: str
    reason: str


class _ScoresFields(TypedDict, total=False):
    omitted: list[OmittedMetric]
    labels: list[str] | None
    confusion: Confusion | None
    clozeTerms: int
    teacher: dict[str, float | None]


class EvaluationScores(_ScoresFields):
    """The part of an evaluation that follows from the models' answers alone."""

    task: str
    n: Count
    metric: str
    base: dict[str, float | None]
    tuned: dict[str, float | None]
    delta: dict[str, Delta]
    significance: Significance
    slices: list[Slice]
    records: list[EvaluatedRecord]


class EngineSummary(TypedDict):
    """What answered instead of the job's own backend, for which models, and where it was.

    `name` is `vllm`, `llama.cpp` or `openai`; `place` is an address, or the digest of the files.
    """

    name: str
    version: str | None
    model: str
    place: str
    variants: list[str]


def describe_engine(evaluation: Evaluation) -> str | None:
    """Return what answered for the tuned model, in words; None for the job's own backend."""
    engine = evaluation.get("engine")
    if engine is None:
        return None
    version = f" ({engine['version']})" if engine["version"] else ""
    if engine["name"] == "openai":
        return f"{engine['model']} at {engine['place']}{version}"
    return f"{engine['name']}{version}"


class _EarlierFields(TypedDict, total=False):
    engine: str | None


class EarlierScore(_EarlierFields):
    """The headline metric of an earlier evaluation: on other records, of another task or engine."""

    evaluatedAt: str | None
    data: DataSummary
    task: str
    n: int
    metric: str
    base: float | None
    tuned: float | None
    delta: Delta


class GenerationSummary(TypedDict):
    """How the answers were generated."""

    maxNewTokens: int
    temperature: float
    topP: float
    seed: int


class InferenceFields(TypedDict, total=False):
    """What ran besides the scores: models by digest or ARN, parameters, requests, diagnostics."""

    identities: dict[str, str | None] | None
    decoding: GenerationSummary | None
    asked: dict[str, int]
    pitfalls: dict[str, DiagnosticResult]
    suites: list[SuiteResult]
    engine: EngineSummary
    evaluationJobs: dict[str, str]
    earlier: list[EarlierScore]


class _EvaluationFields(InferenceFields, total=False):
    version: int
    name: str
    backend: str
    baseModel: str
    createdAt: str
    seconds: float


class Evaluation(EvaluationScores, _EvaluationFields):
    """One evaluation of a job. `compare`, `report` and `review` read it (see history.py)."""

    job: str
    data: DataSummary
    warnings: list[EvaluationWarning]


def save_evaluation(job_folder: Path, evaluation: Evaluation) -> Path:
    """Write an evaluation to the job's folder and return its file. Raises StoreError."""
    time = evaluation["createdAt"].replace(":", "").replace("+0000", "Z")
    path = job_folder / EVALUATIONS_FOLDER / f"{time}-{evaluation['data']['sha256'][:8]}.json"
    with as_store_error("can't save the evaluation", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(path, orjson.dumps(evaluation, option=orjson.OPT_INDENT_2))
    return path


class HeadlineScore(msgspec.Struct):
    """The metric that decides an evaluation, and its value for base and tuned model."""

    metric: str
    base: dict[str, float | None]
    tuned: dict[str, float | None]


def load_newest_score(job_folder: Path) -> HeadlineScore | None:
    """Return the score of the job's newest evaluation, without its records.

    Return None when there is no evaluation, or one that can't be read.
    """
    files = sorted((job_folder / EVALUATIONS_FOLDER).glob("*.json"))
    try:
        return msgspec.json.decode(files[-1].read_bytes(), type=HeadlineScore) if files else None
    except (OSError, msgspec.DecodeError):
        return None


def load_evaluation(path: Path) -> Evaluation:
    """Return one evaluation, with all of its keys.

    Raises DamagedJob when it can't be read or has another version.
    """
    with as_damaged_job(path, path.parent.parent.name):
        content = path.read_bytes()
        _check(decode(content, Evaluation, file=path, versions=(FORMAT_VERSION,)), path)
        # `decode` drops unknown keys, such as the diagnostics' numbers, which the JSON output has.
        evaluation: Evaluation = orjson.loads(content)
    return evaluation


def _check(evaluation: Evaluation, path: Path) -> None:
    """Raise BadDocument where parts of an evaluation do not fit together."""
    reason = _find_inconsistency(evaluation)
    if reason is not None:
        raise BadDocument(
            f"{path.name} is damaged: {reason}",
            file=str(path),
            fix="restore it from a backup or remove it.",
        )


def _find_inconsistency(evaluation: Evaluation) -> str | None:
    base, tuned = evaluation["base"], evaluation["tuned"]
    figures: Mapping[str, object] = evaluation["delta"]
    missing = ({evaluation["metric"]} | set(base)) - (set(tuned) & set(figures))
    if missing:
        return f"there are no figures for {min(missing)[:40]}"
    confusion = evaluation.get("confusion")
    if confusion is not None:
        matrices = (confusion["base"], confusion["tuned"])
        if any(len(rows) > len(confusion["labels"]) for rows in matrices):
            return "there are more rows than labels"
    if evaluation["task"] not in (LANGUAGE_MODELING_TASK, PREFERENCE_TASK):
        for record in evaluation["records"]:
            if record["base"].get("text") is None or record["tuned"].get("text") is None:
                return "a record lacks an answer's text"
    return None
