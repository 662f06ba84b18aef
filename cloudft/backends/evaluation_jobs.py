"""Evaluation jobs of a service: a judge model scores the answers that a tuned job gave."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class AnsweredRecord:
    """A held-out record with a model's answer, as a judge reads it."""

    prompt: str
    reference: str
    response: str


@dataclass(frozen=True)
class JudgeSettings:
    """By which metrics answers are judged (names without `Builtin.`), and by which model.

    `judge` is a model id, an ARN, a profile's id or a name of the catalogue; in a plan it is the
    identifier that is called.
    """

    metrics: tuple[str, ...]
    judge: str


@dataclass(frozen=True)
class PlannedEvaluationJob:
    """One evaluation job: the answers of one model, and the exact request.

    `existing` is the ARN of the job of this request that the account has already, unless that one
    failed or was stopped; then the request is not sent.
    """

    variant: str
    dataset_uri: str
    dataset: bytes
    parameters: Mapping[str, Any]
    existing: str | None = None


@dataclass(frozen=True)
class EvaluationPlan:
    """The evaluation jobs of an evaluation, one for each model."""

    settings: JudgeSettings
    region: str
    jobs: tuple[PlannedEvaluationJob, ...]

    @property
    def new_jobs(self) -> tuple[PlannedEvaluationJob, ...]:
        """Return the jobs that would be created, and paid for."""
        return tuple(job for job in self.jobs if job.existing is None)


@dataclass(frozen=True)
class Judgment:
    """What a judge says about one answer. `score` is None where it gives none."""

    score: float | None
    explanation: str = ""


RecordJudgments = Mapping[str, Judgment]
"""Judgments of one answer by metric; a metric for which the job has no result is missing."""


@dataclass(frozen=True)
class JudgedAnswers:
    """The results of one evaluation job: judgments in the order of the records."""

    variant: str
    job_arn: str
    records: Sequence[RecordJudgments]
