"""Sample a base model's answers, have them graded, and say whether reinforcement can work."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cloudft.backends.base import Backend
from cloudft.backends.capabilities import ProgressCallback, SupportsGrading, SupportsInference
from cloudft.backends.trained_model import trained_model
from cloudft.errors import UsageError
from cloudft.evaluate.rewards.figures import (
    GradedAnswer,
    RewardFigures,
    RewardGroup,
    Verdict,
    judge_rewards,
    summarize_rewards,
    warn_of_rewards,
)
from cloudft.evaluate.rewards.prompts import GradedPrompt
from cloudft.grading import GraderConfig, GradingSession
from cloudft.inference import GenerationConfig
from cloudft.spec.grader_file import read_grader
from cloudft.spec.load import LoadedJob


@dataclass(frozen=True)
class AnswerText:
    """An answer to be graded. `tokens` is None where their number is not known."""

    text: str
    tokens: int | None = None
    is_cut: bool = False


@dataclass(frozen=True)
class SampledAnswers:
    """Prompts with their answers. `seconds` is the time of sampling, None for given answers."""

    groups: tuple[tuple[GradedPrompt, tuple[AnswerText, ...]], ...]
    model: str | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class RewardReport:
    """A grader measured on answers. `call_seconds` are those inside the handler, an event each.

    `warnings` are pairs of message and remedy.
    """

    groups: tuple[RewardGroup, ...]
    figures: RewardFigures
    verdict: Verdict
    sentence: str
    warnings: tuple[tuple[str, str], ...]
    call_seconds: tuple[float, ...]
    answers: SampledAnswers

    @property
    def median_call_seconds(self) -> float:
        """Return the median time of an event with the answers to one prompt."""
        return statistics.median(self.call_seconds)

    @property
    def seconds_per_answer(self) -> float:
        """Return the grader's mean time for an answer."""
        return sum(self.call_seconds) / self.figures.answers


def grader_config(job: LoadedJob) -> GraderConfig:
    """Return the job's grader with its limits. Raise UsageError without one, CheckFailed."""
    section, grader = job.spec.reinforcement, read_grader(job)
    if section is None or grader is None:
        raise UsageError(
            "the job file names no grader",
            file=str(job.path) if job.path else None,
            field="reinforcement.grader",
            fix="write `reinforcement: {grader: FILE.py}`, a file with"
            " lambda_handler(event, context).",
        )
    return GraderConfig(grader.path, section.timeout_seconds, section.memory_mb)


def sample_answers(
    job: LoadedJob,
    backend: Backend,
    prompts: Sequence[GradedPrompt],
    samples: int,
    config: GenerationConfig,
    progress: ProgressCallback,
) -> SampledAnswers:
    """Return `samples` answers of the base model to each prompt. Raise TrainerError."""
    model = trained_model(job)
    if model is None or not isinstance(backend, SupportsInference):
        raise UsageError(
            f"the weights of {job.spec.base_model} are not on this machine",
            fix="name a model to stand in for it (`local: {model: smollm2-135m}`), or grade"
            " answers of a file: --answers FILE.",
        )
    requests = [one.prompt for one in prompts for _ in range(samples)]
    texts: list[AnswerText] = [AnswerText("")] * len(requests)
    progress("answers", 0, len(requests))
    session = backend.open_base_session(job)
    try:
        started = time.monotonic()
        for done, answer in enumerate(session.generate(requests, ["base"], config), 1):
            is_cut = answer.finish_reason == "length"
            texts[answer.index] = AnswerText(answer.text, answer.tokens, is_cut)
            progress("answers", done, len(requests))
        seconds = time.monotonic() - started
    finally:
        session.close()
    parts = [tuple(texts[at : at + samples]) for at in range(0, len(texts), samples)]
    return SampledAnswers(tuple(zip(prompts, parts, strict=True)), model.alias, seconds)


def grade_answers(
    answers: SampledAnswers, backend: Backend, config: GraderConfig, progress: ProgressCallback
) -> RewardReport:
    """Return the report on a grader, by one event for the answers to each prompt.

    Raise GraderFailed, which names the answer.
    """
    assert isinstance(backend, SupportsGrading)
    groups, seconds = [], []
    progress("grades", 0, len(answers.groups))
    with backend.open_grader(config) as grader:
        for done, (prompt, texts) in enumerate(answers.groups, 1):
            event = grader.grade([prompt.sample(one.text, n) for n, one in enumerate(texts, 1)])
            rewards = [grade.reward for grade in event.grades]
            groups.append(_to_group(prompt, texts, rewards))
            seconds.append(event.seconds)
            progress("grades", done, len(answers.groups))
        repeats = _repeats(grader, answers, groups[0])
    figures = summarize_rewards(groups)
    verdict, sentence = judge_rewards(figures)
    warnings = warn_of_rewards(figures)
    if not repeats:
        warnings.append(
            (
                "the grader gives the same answers other rewards when it gets them again",
                "take chance, time and the order of sets out of it.",
            )
        )
    return RewardReport(
        tuple(groups), figures, verdict, sentence, tuple(warnings), tuple(seconds), answers
    )


def _to_group(
    prompt: GradedPrompt, texts: Sequence[AnswerText], rewards: Sequence[float]
) -> RewardGroup:
    graded = (
        GradedAnswer(reward, len(one.text) if one.tokens is None else one.tokens, one.is_cut)
        for reward, one in zip(rewards, texts, strict=True)
    )
    return RewardGroup(prompt.file, prompt.line, tuple(graded))


def _repeats(grader: GradingSession, answers: SampledAnswers, first: RewardGroup) -> bool:
    """Return whether the grader gives the first group its rewards once more."""
    prompt, texts = answers.groups[0]
    again = grader.grade([prompt.sample(one.text, n) for n, one in enumerate(texts, 1)])
    return [grade.reward for grade in again.grades] == first.rewards
