"""Turn graded answers into examples: each token with its advantage and its weight in the loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from local_backend.data.batches import MicroBatchLimit
from local_backend.data.examples import Example
from local_backend.models.token_losses import TokenLosses
from local_backend.settings import Reinforcement
from local_backend.training.objectives.policy_loss import PolicyLoss, PolicySettings
from local_backend.training.reinforcement.advantages import compute_advantages, dead_groups
from local_backend.training.reinforcement.rollouts import Group


@dataclass(frozen=True, kw_only=True)
class PolicyExample(Example):
    """Answers to one prompt, as sequences, with what the loss needs for each loss token.

    All arrays are [loss tokens], in the order of the sequences. The loss is the sum of the tokens'
    losses times `weights`, so that it does not depend on how a batch is split. `old_log_probs` are
    those of the weights that sampled the answers (None: the current ones), and
    `reference_log_probs` those of the base model (None: not needed).
    """

    advantages: np.ndarray
    weights: np.ndarray
    policy: PolicyLoss
    old_log_probs: np.ndarray | None = field(default=None)
    reference_log_probs: np.ndarray | None = field(default=None)

    def constants(self) -> list[torch.Tensor]:
        """Return each sequence's weights, advantages, old and reference log-probabilities."""
        columns = (self.weights, self.advantages, self.old_log_probs, self.reference_log_probs)
        count = int(self.loss_mask.sum())
        table = np.full((count, len(columns)), np.nan, dtype=np.float32)
        for number, column in enumerate(columns):
            if column is not None:
                table[:, number] = column
        lengths = [int(row.loss_mask.sum()) for row in self.rows()]
        return list(torch.from_numpy(table).split(lengths))


def build_examples(
    groups: Sequence[Group], settings: Reinforcement, limit: MicroBatchLimit
) -> list[PolicyExample]:
    """Return the examples of a step.

    The answers to a prompt stay together as far as `limit` allows: the packed path computes their
    prompt once. Groups whose rewards are all equal are left out, unless a penalty acts on them too:
    they have no gradient, and count in the weights all the same.
    """
    rewards = np.array([[grade.reward for grade in group.grades] for group in groups])
    advantages = compute_advantages(rewards, settings.scale_rewards)
    is_dead = dead_groups(rewards)
    advantages[is_dead] = 0.0
    lengths = np.array([group.lengths for group in groups])
    weights = token_weights(lengths, settings)
    policy = PolicyLoss(policy_settings(settings))
    examples = []
    for number, group in enumerate(groups):
        if is_dead[number] and settings.beta == 0:
            continue
        for part in _split_rows(group, limit):
            rows = [(group.prompt.ids, group.answers[i].ids) for i in part]
            counts = lengths[number, part]
            examples.append(
                PolicyExample(
                    np.concatenate([np.concatenate(row) for row in rows]).astype(np.int32),
                    np.concatenate([np.arange(len(p) + len(a)) >= len(p) for p, a in rows]),
                    row_lengths=tuple(len(p) + len(a) for p, a in rows),
                    advantages=np.repeat(advantages[number, part], counts),
                    weights=np.repeat(weights[number, part], counts),
                    policy=policy,
                )
            )
    return examples


def policy_settings(settings: Reinforcement) -> PolicySettings:
    """Return the settings of the loss; its weights are computed for the whole step here."""
    return PolicySettings(settings.beta, settings.epsilon, settings.temperature)


def policy_loss(examples: Sequence[PolicyExample], losses: TokenLosses) -> torch.Tensor:
    """Return GRPO's loss summed over `examples`, a scalar; adds to the policy's statistics."""
    policy = examples[0].policy
    constants = [row for example in examples for row in example.constants()]
    return losses.map_sum(policy.token_losses, constants, policy.settings.temperature)


def _split_rows(group: Group, limit: MicroBatchLimit) -> list[list[int]]:
    """Return the numbers of a group's answers in parts that fit the limit, the prompt included."""
    parts: list[list[int]] = [[]]
    tokens = prompt = len(group.prompt.ids)
    for number, length in enumerate(group.lengths):
        if parts[-1] and (len(parts[-1]) >= limit.sequences or tokens + length > limit.tokens):
            parts.append([])
            tokens = prompt
        parts[-1].append(number)
        tokens += length
    return parts


def token_weights(lengths: np.ndarray, settings: Reinforcement) -> np.ndarray:
    """Return the weight of each token of an answer [prompts, answers], by TRL's `loss_type`.

    `dapo` and `bnpo`: all tokens of the batch weigh the same. `grpo`: all answers do. `dr_grpo`:
    all tokens do, and a batch of short answers weighs less than one of long ones.
    """
    if settings.loss_type == "grpo":
        weights: np.ndarray = 1.0 / (lengths.size * lengths)
        return weights
    if settings.loss_type == "dr_grpo":
        return np.full(lengths.shape, 1.0 / (lengths.size * settings.max_new_tokens))
    return np.full(lengths.shape, 1.0 / lengths.sum())
