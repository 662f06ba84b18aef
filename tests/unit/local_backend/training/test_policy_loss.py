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
from local_backend.packed import PackedLoss
from local_backend.training.loss import forward_padded
from local_backend.training.objectives import find_objective
from local_backend.training.objectives.policy_loss import PolicyLoss, PolicySettings, Rollout

CPU = torch.device("cpu")
TRL = json.loads(Path(__file__).with_name("trl_policy_losses.json").read_text())
"""TRL's losses and gradients, as tools/trl_policy_losses.py wrote them."""


def rollouts(case: dict[str, Any]) -> list[Rollout]:
    return [
        Rollout(
            np.array([*prompt, *row["answer"]], dtype=np.int32),
            np.arange(len(prompt) + len(row["answer"])) >= len(prompt),
            advantage=row["advantage"],
            old_log_probs=np.array(row["old"]) if case["has_old"] else None,
            reference_log_probs=np.array(row["reference"]) if case["beta"] else None,
        )
        for row in policy_cases.ROWS
        for prompt in [policy_cases.PROMPTS[row["prompt"]]]
    ]


def policy(case: dict[str, Any]) -> PolicyLoss:
    return PolicyLoss(PolicySettings(**{k: v for k, v in case.items() if k != "has_old"}))


def packed_sum(model: Any, loss: PolicyLoss, rows: Sequence[Rollout]) -> torch.Tensor:
    path = PackedLoss(model, find_objective("FINE_TUNING"), torch.float32, CPU, reason="tested")
    return path.reduce(rows, lambda losses: loss.sum(rows, losses))


def padded_sum(model: Any, loss: PolicyLoss, rows: Sequence[Rollout]) -> torch.Tensor:
    return loss.sum(rows, forward_padded(model, collate(rows, 0, CPU)))


@pytest.mark.parametrize("path", [packed_sum, padded_sum], ids=["packed", "padded"])
@pytest.mark.parametrize("name", sorted(policy_cases.CASES))
def test_loss_and_gradients_are_those_of_trl(name: str, path: Any) -> None:
    case, model = policy_cases.CASES[name], policy_cases.build_model()
    loss, rows = policy(case), rollouts(case)
    mean = path(model, loss, rows) / loss.count(rows)
    mean.backward()
    expected = TRL["cases"][name]
    assert mean.item() == pytest.approx(expected["loss"], abs=1e-5)
    found = policy_cases.summarize_gradients(model)
    assert found.keys() == expected["gradients"].keys()
    for weight, summary in expected["gradients"].items():
        assert found[weight] == pytest.approx(summary, abs=1e-5 * max(1.0, summary[0]), rel=1e-4)


def test_a_batch_in_parts_has_the_loss_and_gradients_of_the_whole() -> None:
    case = policy_cases.CASES["all"]
    results = []
    for parts in (1, 3):
        model, loss, rows = policy_cases.build_model(), policy(case), rollouts(case)
        total = torch.stack([packed_sum(model, loss, rows[at::parts]) for at in range(parts)]).sum()
        (total / loss.count(rows)).backward()
        results.append((total.item(), policy_cases.summarize_gradients(model), loss.statistics))
    (whole, gradients, counts), (split, split_gradients, split_counts) = results
    assert split == pytest.approx(whole, rel=1e-5)
    for name, summary in gradients.items():
        assert split_gradients[name] == pytest.approx(summary, rel=1e-4, abs=1e-6)
    assert split_counts.means() == pytest.approx(counts.means(), rel=1e-5)


def test_losses_divergence_and_clipping_are_those_of_float64() -> None:
    case = policy_cases.CASES["all"]
    loss, rows = policy(case), rollouts(case)
    log_probs = [torch.from_numpy(row.old_log_probs + 0.15) for row in rows]  # type: ignore[operator]
    total, divergences, clipped, tokens = 0.0, 0.0, 0, 0
    for row, current in zip(rows, log_probs, strict=True):
        assert row.old_log_probs is not None and row.reference_log_probs is not None
        ratio = np.exp(current.numpy() - row.old_log_probs)
        gain = np.minimum(ratio * row.advantage, np.clip(ratio, 0.9, 1.1) * row.advantage)
        distance = row.reference_log_probs - current.numpy()
        divergence = np.exp(distance) - distance - 1
        total += float((-gain + 0.05 * ratio * divergence).sum())
        divergences += float(divergence.sum())
        clipped += len(ratio) if row.advantage > 0 else 0
        tokens += len(ratio)
    found = sum(
        loss.token_losses(-current.float(), loss._constants(row)).sum()
        for row, current in zip(rows, log_probs, strict=True)
    )
    assert float(found) == pytest.approx(total, rel=1e-5)
    means = loss.statistics.means()
    assert means["kl"] == pytest.approx(divergences / tokens, rel=1e-5)
    assert means["clipFraction"] == pytest.approx(clipped / tokens)
