"""Make a step's examples from its prompts, and measure the reward on held-out prompts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from local_backend.data.examples import Example
from local_backend.grading.grader import Grader, GraderSettings
from local_backend.inference.sampler import make_sampler
from local_backend.models import lora
from local_backend.settings import Reinforcement
from local_backend.training.reinforcement.advantages import correlate_with_length, dead_groups
from local_backend.training.reinforcement.policy_examples import PolicyExample, build_examples
from local_backend.training.reinforcement.prompts import PromptExample
from local_backend.training.reinforcement.rollouts import (
    Group,
    RolloutOptions,
    Rollouts,
    seed_of,
)

if TYPE_CHECKING:
    from local_backend.training.prepare_run import TrainingRun

VALIDATION_PROMPTS = 32
"""Held-out prompts answered at once."""


@dataclass(frozen=True)
class Batch:
    """What a step learns from: its examples, and what the curve shows of their answers.

    `tokens` went through the model while the answers were sampled.
    """

    examples: list[PolicyExample]
    values: dict[str, float]
    tokens: int
    answer_tokens: int


@dataclass(frozen=True)
class Rewards:
    """The rewards of held-out prompts, one answer each, and the answers' means."""

    rewards: list[float]
    response_length: float
    entropy: float

    @property
    def mean(self) -> float:
        """Return the mean reward."""
        return sum(self.rewards) / len(self.rewards)


@dataclass
class Practice:
    """Samples answers of the model in training and has them graded."""

    settings: Reinforcement
    rollouts: Rollouts

    def make_batch(self, run: TrainingRun, step: int, prompts: Sequence[Example]) -> Batch:
        """Return the examples of a step. The same step gives the same answers again."""
        settings = self.settings
        options = RolloutOptions(
            settings.samples_per_prompt, settings.max_new_tokens, settings.temperature
        )
        seeds = [seed_of(run.settings.seed, step, number) for number in range(len(prompts))]
        groups = self.rollouts.run(
            as_prompts(prompts), options, seeds, run.reporter.raise_if_stopped
        )
        examples = build_examples(groups, settings, run.micro_batch_limit)
        interval = run.settings.eval_steps
        if settings.num_iterations > 1:
            examples = [
                replace(e, old=nll)
                for e, nll in zip(examples, token_losses(run, examples), strict=True)
            ]
        values = describe_groups(groups, settings)
        if run.settings.method != "full" and (
            settings.beta > 0 or (interval and step % interval == 0)
        ):
            with base_model(run):
                reference = token_losses(run, examples)
            if settings.beta > 0:
                examples = [
                    replace(e, reference=nll) for e, nll in zip(examples, reference, strict=True)
                ]
            else:
                values |= measure_divergence(run, examples, reference)
        answer_tokens = sum(sum(group.lengths) for group in groups)
        tokens = answer_tokens + sum(len(group.prompt.ids) for group in groups)
        return Batch(examples, values, tokens, answer_tokens)

    def measure(self, run: TrainingRun, prompts: Sequence[Example]) -> Rewards:
        """Return the rewards of one greedy answer to each of these prompts."""
        options = RolloutOptions(1, self.settings.max_new_tokens, 0.0)
        # By length, so that the prompts of a batch end at about the same place.
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
        groups = self.rollouts.run(
            as_prompts([prompts[i] for i in order]),
            options,
            [0] * len(prompts),
            run.reporter.raise_if_stopped,
        )
        rewards = [0.0] * len(prompts)
        for index, group in zip(order, groups, strict=True):
            rewards[index] = group.grades[0].reward
        answers = [group.answers[0] for group in groups]
        return Rewards(
            rewards,
            sum(len(answer.ids) for answer in answers) / len(answers),
            sum(answer.entropy for answer in answers) / len(answers),
        )


@contextlib.contextmanager
def open_practice(run: TrainingRun) -> Iterator[None]:
    """Give the run its grader and its sampler within the context, if it learns from rewards."""
    settings, file = run.settings.reinforcement, run.settings.grader
    if settings is None:
        yield
        return
    assert file is not None, "the objective refuses a job without a grader"
    grader = Grader(GraderSettings(file.path, file.timeout_seconds, file.memory_mb))
    sampler = make_sampler(run.loaded, run.loss, run.dtype, run.device)
    with grader:
        run.practice = Practice(settings, Rollouts(run.loaded, sampler, grader))
        try:
            yield
        finally:
            run.practice = None


def as_prompts(examples: Sequence[Example]) -> list[PromptExample]:
    """Return the examples typed as the prompts that they are."""
    prompts = [example for example in examples if isinstance(example, PromptExample)]
    assert len(prompts) == len(examples)
    return prompts


def describe_groups(groups: Sequence[Group], settings: Reinforcement) -> dict[str, float]:
    """Return what the curve shows of a step's answers."""
    rewards = np.array([[grade.reward for grade in group.grades] for group in groups])
    lengths = np.array([group.lengths for group in groups])
    answers = [answer for group in groups for answer in group.answers]
    values = {
        "reward": float(rewards.mean()),
        "rewardMin": float(rewards.min()),
        "rewardMax": float(rewards.max()),
        "responseLength": float(lengths.mean()),
        "entropy": sum(answer.entropy for answer in answers) / len(answers),
        "deadGroups": float(dead_groups(rewards).mean()),
        "cutAnswers": sum(not answer.ended for answer in answers) / len(answers),
    }
    correlation = correlate_with_length(rewards, lengths)
    return values if correlation is None else values | {"lengthCorrelation": correlation}


@contextlib.contextmanager
def base_model(run: TrainingRun) -> Iterator[None]:
    """Turn the model in training into its base within the context."""
    if run.settings.method == "qlora":
        with run.loaded.model.disable_adapter():  # PEFT's own layers
            yield
    else:
        with lora.disable_adapters(run.loaded.model):
            yield


def token_losses(run: TrainingRun, examples: Sequence[PolicyExample]) -> list[np.ndarray]:
    """Return the negative log-likelihoods of each example's loss tokens, without dropout."""
    found: list[np.ndarray] = []
    was_training = run.loaded.model.training
    run.loaded.model.eval()
    try:
        with torch.no_grad():
            for example in examples:
                rows = run.loss.by_row([example])
                found.append(torch.cat(rows).float().cpu().numpy())
    finally:
        run.loaded.model.train(was_training)
    return found


def measure_divergence(
    run: TrainingRun, examples: Sequence[PolicyExample], reference: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the mean divergence from the base over these examples' tokens (Schulman's k3)."""
    if not examples:
        return {}
    current = token_losses(run, examples)
    difference = np.concatenate(current) - np.concatenate(list(reference))
    return {"kl": float((np.exp(difference) - difference - 1).mean())}
