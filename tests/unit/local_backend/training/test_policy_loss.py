"""The loss of group-relative policy optimization: TRL's, on both paths, and in float64."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import policy_cases
import pytest
import torch

from local_backend.data.batches import collate
from local_backend.data.examples import flatten_rows
from local_backend.packed import PackedLoss
from local_backend.settings import Reinforcement
from local_backend.training.loss import forward_padded
from local_backend.training.objectives import find_objective
from local_backend.training.objectives.policy_loss import PolicyLoss
from local_backend.training.reinforcement.policy_examples import (
    PolicyExample,
    policy_loss,
    policy_settings,
    token_weights,
)

CPU = torch.device("cpu")
NOT_SETTINGS = ("has_old", "max_new_tokens")
TRL = json.loads(Path(__file__).with_name("trl_policy_losses.json").read_text())
"""TRL's losses and gradients, as tools/trl_policy_losses.py wrote them."""


def examples(case: dict[str, Any]) -> list[PolicyExample]:
    """Return the case's answers as the trainer has them: those to one prompt are one example."""
    settings = Reinforcement(
        4, case["max_new_tokens"], None, **{k: v for k, v in case.items() if k not in NOT_SETTINGS}
    )
    weights = token_weights(np.array(policy_cases.LENGTHS).reshape(2, 4), settings)
    policy = PolicyLoss(policy_settings(settings))
    result = []
    for number, prompt in enumerate(policy_cases.PROMPTS):
        rows = policy_cases.ROWS[number * 4 : number * 4 + 4]
        lengths = [len(row["answer"]) for row in rows]
        result.append(
            PolicyExample(
                np.concatenate([[*prompt, *row["answer"]] for row in rows]).astype(np.int32),
                np.concatenate([np.arange(len(prompt) + n) >= len(prompt) for n in lengths]),
                row_lengths=tuple(len(prompt) + n for n in lengths),
                advantages=np.repeat([row["advantage"] for row in rows], lengths),
                weights=np.repeat(weights[number], lengths),
                policy=policy,
                old_log_probs=join(rows, "old") if case["has_old"] else None,
                reference_log_probs=join(rows, "reference") if case["beta"] else None,
            )
        )
    return result


def join(rows: Sequence[dict[str, Any]], name: str) -> Any:
    return np.concatenate([row[name] for row in rows])


def packed_sum(model: Any, batch: Sequence[PolicyExample]) -> torch.Tensor:
    path = PackedLoss(model, find_objective("FINE_TUNING"), torch.float32, CPU, reason="tested")
    return path.reduce(batch, lambda losses: policy_loss(batch, losses))


def padded_sum(model: Any, batch: Sequence[PolicyExample]) -> torch.Tensor:
    return policy_loss(batch, forward_padded(model, collate(flatten_rows(batch), 0, CPU)))


@pytest.mark.parametrize("path", [packed_sum, padded_sum], ids=["packed", "padded"])
@pytest.mark.parametrize("name", sorted(policy_cases.CASES))
def test_loss_and_gradients_are_those_of_trl(name: str, path: Any) -> None:
    model = policy_cases.build_model()
    mean = path(model, examples(policy_cases.CASES[name]))
    mean.backward()
    expected = TRL["cases"][name]
    assert mean.item() == pytest.approx(expected["loss"], abs=1e-5)
    found = policy_cases.summarize_gradients(model)
    assert found.keys() == expected["gradients"].keys()
    for weight, summary in expected["gradients"].items():
        assert found[weight] == pytest.approx(summary, abs=1e-5 * max(1.0, summary[0]), rel=1e-4)


def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole() -> None:
    results = []
    for size in (2, 1):
        model, batch = policy_cases.build_model(), examples(policy_cases.CASES["all"])
        parts = [batch[at : at + size] for at in range(0, 2, size)]
        total = torch.stack([packed_sum(model, part) for part in parts]).sum()
        total.backward()
        statistics = batch[0].policy.statistics
        counts = [statistics.tokens, float(statistics.kl), float(statistics.clipped)]
        results.append((total.item(), policy_cases.summarize_gradients(model), counts))
    (whole, gradients, counts), (split, split_gradients, split_counts) = results
    assert split == pytest.approx(whole, rel=1e-5) and split_counts == pytest.approx(counts)
    for name, summary in gradients.items():
        assert split_gradients[name] == pytest.approx(summary, rel=1e-4, abs=1e-6)


def test_losses_divergence_and_clipping_are_those_of_float64() -> None:
    batch = examples(policy_cases.CASES["all"])
    total, divergences, clipped, tokens, found = 0.0, 0.0, 0, 0, 0.0
    for one in batch:
        assert one.old_log_probs is not None and one.reference_log_probs is not None
        current = one.old_log_probs + 0.15
        ratio = np.exp(current - one.old_log_probs)
        gain = np.minimum(ratio * one.advantages, np.clip(ratio, 0.9, 1.1) * one.advantages)
        distance = one.reference_log_probs - current
        divergence = np.exp(distance) - distance - 1
        total += float((one.weights * (-gain + 0.05 * ratio * divergence)).sum())
        divergences += float(divergence.sum())
        clipped += int((one.advantages > 0).sum())
        tokens += len(current)
        losses = -torch.from_numpy(current).float()
        found += float(one.policy.token_losses(losses, torch.cat(one.constants())).sum())
    assert found == pytest.approx(total, rel=1e-5)
    statistics = batch[0].policy.statistics
    assert statistics.tokens == tokens and float(statistics.clipped) == clipped
    assert float(statistics.kl) == pytest.approx(divergences, rel=1e-5)
