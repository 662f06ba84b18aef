"""Evaluate a reinforcement job: the rewards of base and tuned model for the same prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from cloudft.backends import DEFAULT_BACKEND, make_backend
from cloudft.backends.capabilities import ProgressCallback, SupportsGrading
from cloudft.evaluate.held_out import EvalExample, HeldOutData, spec_from_record
from cloudft.evaluate.inference.cached_inference import (
    BASE,
    TUNED,
    VARIANTS,
    ModelAnswer,
    Variant,
)
from cloudft.evaluate.metrics.intervals import paired_mean_interval
from cloudft.evaluate.metrics.scores import HEADLINE_METRIC
from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.metrics.slices import compute_slices
from cloudft.evaluate.results import (
    REWARD_TASK,
    Delta,
    EvaluatedRecord,
    EvaluationScores,
    ScoredAnswer,
    make_delta,
    make_record,
)
from cloudft.evaluate.supervised import significance_to_json
from cloudft.grading import Grade, GraderConfig, GradingSession
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

METRIC = HEADLINE_METRIC[REWARD_TASK]
GRADER_FILE = "grader.py"
"""The copy of the grader in the folder of a job that was trained here."""
EVENT_SIZE = 16
"""Answers of one event."""
Answers = Mapping[Variant, Sequence[ModelAnswer]]
Rewards = Mapping[Variant, Sequence[float]]


def job_grader(record: JobRecord) -> GraderConfig | None:
    """Return the grader of a job: the copy that it was trained with, or the job file's file.

    None for a job without a grader on this machine.
    """
    spec = spec_from_record(record)
    section = None if spec is None else spec.reinforcement
    if section is None:
        return None
    copy = record.folder / GRADER_FILE
    path = copy if copy.is_file() else Path(section.grader) if section.grader else None
    if path is None or not path.is_file():
        return None
    return GraderConfig(path, section.timeout_seconds, section.memory_mb)


def evaluate_rewards(
    held_out: HeldOutData,
    answers: Answers,
    config: GraderConfig,
    home: Home,
    progress: ProgressCallback,
) -> EvaluationScores:
    """Return the part of an evaluation that follows from the rewards of both models' answers.

    Raise GraderFailed.
    """
    backend = make_backend(DEFAULT_BACKEND, home)
    assert isinstance(backend, SupportsGrading)
    with backend.open_grader(config) as grader:
        grades = {
            name: _grade(grader, held_out.examples, name, answers[name], progress)
            for name in VARIANTS
        }
    rewards = {name: [grade.reward for grade in grades[name]] for name in VARIANTS}
    metrics = {name: _metrics(grades[name], answers[name]) for name in VARIANTS}
    deltas = _deltas(metrics, rewards)
    difference = compare_paired(rewards[BASE], rewards[TUNED])
    lengths = [len(example.input_text) for example in held_out.examples]
    return {
        "task": REWARD_TASK,
        "n": len(held_out.examples),
        "metric": METRIC,
        "base": {**metrics[BASE]},
        "tuned": {**metrics[TUNED]},
        "delta": deltas,
        "significance": significance_to_json(difference, METRIC, metrics, deltas[METRIC]),
        "labels": None,
        "confusion": None,
        "slices": compute_slices([None] * len(lengths), lengths, rewards[BASE], rewards[TUNED]),
        "records": [_record(held_out, index, answers, rewards) for index in range(len(lengths))],
    }


def _grade(
    grader: GradingSession,
    examples: Sequence[EvalExample],
    variant: Variant,
    answers: Sequence[ModelAnswer],
    progress: ProgressCallback,
) -> list[Grade]:
    """Return the grade of each answer, by events of EVENT_SIZE answers."""
    grades: list[Grade] = []
    label = f"grades ({variant})"
    for start in range(0, len(examples), EVENT_SIZE):
        progress(label, start, len(examples))
        part = slice(start, start + EVENT_SIZE)
        samples = [
            example.for_grader.sample(answer.text, 1)
            for example, answer in zip(examples[part], answers[part], strict=True)
            if example.for_grader is not None
        ]
        grades += grader.grade(samples).grades
    progress(label, len(examples), len(examples))
    return grades


def _metrics(grades: Sequence[Grade], answers: Sequence[ModelAnswer]) -> dict[str, float]:
    """Return the mean reward, the means of what else the grader measures, and of the answers.

    Of the grader's metrics those are taken that every answer has.
    """
    count = len(grades)
    shared = set(grades[0].metrics).intersection(*(grade.metrics for grade in grades))
    means = {
        f"{METRIC}.{name}": sum(grade.metrics[name] for grade in grades) / count
        for name in sorted(shared)
    }
    return {
        METRIC: sum(grade.reward for grade in grades) / count,
        **means,
        "emptyShare": sum(not answer.text.strip() for answer in answers) / count,
        "cutShare": sum(answer.finish_reason == "length" for answer in answers) / count,
        "answerTokens": sum(answer.tokens for answer in answers) / count,
    }


def _deltas(metrics: Mapping[Variant, Mapping[str, float]], rewards: Rewards) -> dict[str, Delta]:
    """Return tuned minus base of each metric; the reward's with its interval."""
    interval = paired_mean_interval(rewards[BASE], rewards[TUNED])
    return {
        name: make_delta(
            metrics[TUNED][name] - metrics[BASE][name], interval if name == METRIC else None
        )
        for name in metrics[BASE]
        if name in metrics[TUNED]
    }


def _record(
    held_out: HeldOutData, index: int, answers: Answers, rewards: Rewards
) -> EvaluatedRecord:
    example = held_out.examples[index]

    def scored(name: Variant) -> ScoredAnswer:
        answer = answers[name][index]
        return {
            "text": answer.text,
            "score": rewards[name][index],
            "correct": None,
            "tokens": answer.tokens,
            "finishReason": answer.finish_reason,
        }

    return make_record(index, example, scored(BASE), scored(TUNED))
