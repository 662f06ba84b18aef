"""Make a step's examples from its prompts, and measure the reward on held-out prompts."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch

from local_backend.data.examples import Example
from local_backend.errors import TrainerError
from local_backend.grading.grader import Grader, GraderSettings
from local_backend.inference.sampler import make_sampler
from local_backend.job_dir import METRICS, write_json
from local_backend.models import lora
from local_backend.settings import Reinforcement
from local_backend.training.loss_curve import TRAIN, read_curve
from local_backend.training.objectives.policy_loss import PolicyStatistics
from local_backend.training.reinforcement.advantages import correlate_with_length, dead_groups
from local_backend.training.reinforcement.bootstrap import bootstrap_gain
from local_backend.training.reinforcement.monitor import (
    StepPoint,
    describe_reward_hacking,
    find_collapse,
    find_end_of_learning,
    find_reward_hacking,
    require_reward,
)
from local_backend.training.reinforcement.policy_examples import (
    PolicyExample,
    build_examples,
)
from local_backend.training.reinforcement.prompts import PromptExample
from local_backend.training.reinforcement.rollouts import (
    Group,
    RolloutOptions,
    Rollouts,
    seed_of,
)

if TYPE_CHECKING:
    from local_backend.training.loss import LossFunction
    from local_backend.training.prepare_run import TrainingRun

REWARDS = "rewards-{step:08d}.json"
"""The rewards of the held-out prompts after a step, in the folder of the checkpoints."""


@dataclass(frozen=True)
class Batch:
    """What a step learns from: its examples, and what the curve shows of their answers.

    `tokens` went through the model while the answers were sampled.
    """

    examples: list[PolicyExample]
    values: dict[str, float]
    tokens: int
    answer_tokens: int

    def begin_update(self) -> None:
        """Forget what the loss of earlier updates found."""
        self.examples[0].policy.statistics = PolicyStatistics()

    def statistics(self) -> PolicyStatistics:
        """Return what the loss of the last update found."""
        return self.examples[0].policy.statistics


@dataclass
class GrpoTrainer:
    """Samples answers of the model in training and has them graded."""

    settings: Reinforcement
    rollouts: Rollouts
    history: list[StepPoint] = field(default_factory=list)
    """The points of the training curve so far."""
    held_out: list[float] = field(default_factory=list)
    """The rewards of the held-out prompts in the current validation."""

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
                replace(e, old_log_probs=values)
                for e, values in zip(examples, log_probs(run, examples), strict=True)
            ]
        values = describe_groups(groups, settings)
        if run.settings.method != "full" and (
            settings.beta > 0 or (interval and step % interval == 0)
        ):
            with base_model(run):
                reference = log_probs(run, examples)
            if settings.beta > 0:
                examples = [
                    replace(e, reference_log_probs=values)
                    for e, values in zip(examples, reference, strict=True)
                ]
            else:
                values |= measure_divergence(run, examples, reference)
        answer_tokens = sum(sum(group.lengths) for group in groups)
        tokens = answer_tokens + sum(len(group.prompt.ids) for group in groups)
        return Batch(examples, values, tokens, answer_tokens)

    def measure(
        self, run: TrainingRun, prompts: Sequence[Example]
    ) -> tuple[float, float, float, float]:
        """Return the sums of reward, length and entropy over one greedy answer to each prompt.

        The fourth number is the number of prompts. The rewards are added to `held_out`.
        """
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
        self.held_out += rewards
        answers = [group.answers[0] for group in groups]
        length = sum(len(answer.ids) for answer in answers)
        entropy = sum(answer.entropy for answer in answers)
        return sum(rewards), float(length), entropy, float(len(prompts))

    def record_step(self, run: TrainingRun, values: Mapping[str, float]) -> None:
        """Add a step's point to the history, and log what it shows of the run.

        Raise TrainerError if the run is in vain: without any reward, or collapsed without held-out
        prompts that would have shown the best weights.
        """
        self.history.append(dict(values))
        prompts = min(run.settings.batch_size, len(run.train.examples))
        require_reward(self.history, prompts * self.settings.samples_per_prompt)
        collapse = find_collapse(self.history)
        if collapse is not None and run.validation is None:
            raise TrainerError(
                f"Training stopped after step {len(self.history)}: {collapse}.",
                fix="lower the learningRate, or set local.reinforcement.beta (0.04, say); with"
                " validation data the best weights would have been kept.",
            )
        hacking = find_reward_hacking(self.history)
        if hacking is not None:
            if "rewardHacking" not in run.reporter.summary:
                run.reporter.log(f"warning: {describe_reward_hacking(hacking)}")
            run.reporter.summary["rewardHacking"] = hacking
        else:
            run.reporter.summary.pop("rewardHacking", None)

    def has_ended(self, run: TrainingRun) -> bool:
        """Return True, and log why, if more steps would teach nothing or do harm."""
        reason = find_end_of_learning(self.history) or find_collapse(self.history)
        if reason is None:
            return False
        run.reporter.log(f"early stopping after step {run.position.step}: {reason}")
        run.reporter.summary |= {"stoppedEarly": True, "stopReason": reason}
        return True

    def keep_rewards(self, folder: Path, step: int) -> None:
        """Keep the rewards of the last validation, to compare them prompt by prompt at the end."""
        write_json(folder / REWARDS.format(step=step), self.held_out)


def compare_rewards(folder: Path, step: int | None) -> dict[str, object]:
    """Return the gain of the weights after `step` over the base, with its 95 % interval.

    Nothing if the rewards of one of them were not kept: the job was resumed without them.
    """
    try:
        before, after = (
            json.loads((folder / REWARDS.format(step=number)).read_text(encoding="utf-8"))
            for number in (0, step)
        )
        gain, low, high = bootstrap_gain(before, after)
    except (OSError, ValueError):
        return {}
    return {"rewardGain": gain, "rewardGainInterval": [low, high]}


@contextlib.contextmanager
def open_grpo(run: TrainingRun) -> Iterator[None]:
    """Give the run its grader and its sampler within the context, if it learns from rewards."""
    settings, file = run.settings.reinforcement, run.settings.grader
    if settings is None:
        yield
        return
    assert file is not None, "the objective refuses a job without a grader"
    grader = Grader(GraderSettings(file.path, file.timeout_seconds, file.memory_mb))
    sampler = make_sampler(run.loaded, run.loss, run.dtype, run.device)
    with grader:
        history = read_history(run.checkpoints.parent / METRICS)
        run.grpo = GrpoTrainer(settings, Rollouts(run.loaded, sampler, grader), history)
        try:
            yield
        finally:
            run.grpo = None


def read_history(curve: Path) -> list[StepPoint]:
    """Return the points of the training curve, which a resumed run continues."""
    if not curve.exists():
        return []
    points = [dict(point) for point in read_curve(curve) if point["split"] == TRAIN]
    return cast("list[StepPoint]", points)


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
    with lora.disable_adapters(run.loaded.model):
        yield


def log_probs(run: TrainingRun, examples: Sequence[PolicyExample]) -> list[np.ndarray]:
    """Return the log-probabilities of each example's loss tokens under the model as it is now.

    At the temperature of sampling, without dropout.
    """
    was_training = run.loaded.model.training
    run.loaded.model.eval()
    try:
        with torch.no_grad():
            return [_log_probs_of(run.loss, example) for example in examples]
    finally:
        run.loaded.model.train(was_training)


def _log_probs_of(loss: LossFunction, example: PolicyExample) -> np.ndarray:
    found = torch.empty(len(example.weights))

    def collect(losses: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
        found[places[:, 0].long().cpu()] = -losses.detach().float().cpu()
        return torch.zeros_like(losses)

    # A token's constants are its place: the paths have their own orders.
    places = torch.arange(len(found), dtype=torch.float64)[:, None]
    rows = list(places.split([int(row.loss_mask.sum()) for row in example.rows()]))
    temperature = example.policy.settings.temperature
    loss.reduce([example], lambda losses: losses.map_sum(collect, rows, temperature))
    return found.numpy()


def measure_divergence(
    run: TrainingRun, examples: Sequence[PolicyExample], reference: Sequence[np.ndarray]
) -> dict[str, float]:
    """Return the mean divergence from the base over these examples' tokens (Schulman's k3)."""
    if not examples:
        return {}
    current = log_probs(run, examples)
    difference = np.concatenate(list(reference)) - np.concatenate(current)
    return {"kl": float((np.exp(difference) - difference - 1).mean())}
