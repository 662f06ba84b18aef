"""The losses of pairs of answers: DPO, SimPO and ORPO, from the answers' log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F

from local_backend.settings import PreferenceSettings

MAX_MEAN_LOG_PROBABILITY = -1e-6
"""Where the odds of an answer that is certain are cut: they have no bound."""


def sum_pair_losses(
    rows: Sequence[torch.Tensor],
    pairs: int,
    references: Sequence[tuple[float, ...] | None] | None,
    settings: PreferenceSettings,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return the loss summed over pairs, and the sums of what is measured of them.

    `rows` are the token losses of each answer, the chosen one of a pair before the rejected one.
    `references` are both answers' log-probabilities under the reference model, for a method that
    has one. The sums are None without pairs: a placeholder of a rank that has less to do.
    """
    totals = -torch.stack([row.sum() for row in rows])
    if not pairs:
        return 0.0 * totals.sum(), None
    assert len(rows) == 2 * pairs
    totals = totals.view(pairs, 2)
    lengths = totals.new_tensor([len(row) for row in rows]).view(pairs, 2)
    logps = totals if settings.method == "dpo" else totals / lengths
    if references is not None:
        # Without a reference (memory estimate, probe) the model is its own.
        is_known = all(references)
        logps = logps - (logps.new_tensor(references) if is_known else logps.detach())
    loss = LOSSES[settings.method](logps, settings).sum()
    return loss, _measure(totals, lengths, settings.beta * logps.detach().double())


def _measure(totals: torch.Tensor, lengths: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Return the pairs' chosen losses, their tokens, both rewards, correct orders and number."""
    correct = (rewards[:, 0] > rewards[:, 1]).sum()
    return torch.stack(
        [
            -totals.detach().double()[:, 0].sum(),
            lengths[:, 0].double().sum(),
            *rewards.sum(0),
            correct.double(),
            correct.new_tensor(len(totals)).double(),
        ]
    )


def _dpo(logps: torch.Tensor, settings: PreferenceSettings) -> torch.Tensor:
    return _smoothed(logps[:, 0] - logps[:, 1], settings)


def _simpo(logps: torch.Tensor, settings: PreferenceSettings) -> torch.Tensor:
    margin = settings.simpo_gamma / settings.beta
    return _smoothed(logps[:, 0] - logps[:, 1] - margin, settings)


def _smoothed(logits: torch.Tensor, settings: PreferenceSettings) -> torch.Tensor:
    """Return the loss where `label_smoothing` is the chance that a pair is the wrong way round."""
    beta, smoothing = settings.beta, settings.label_smoothing
    right, wrong = F.logsigmoid(beta * logits), F.logsigmoid(-beta * logits)
    return -(1 - smoothing) * right - smoothing * wrong


def _orpo(logps: torch.Tensor, settings: PreferenceSettings) -> torch.Tensor:
    """Return the chosen answers' loss less beta times the log-sigmoid of the odds' ratio."""
    means = logps.clamp(max=MAX_MEAN_LOG_PROBABILITY)
    odds = means - torch.log(-torch.expm1(means))
    return -logps[:, 0] - settings.beta * F.logsigmoid(odds[:, 0] - odds[:, 1])


LOSSES = {"dpo": _dpo, "simpo": _simpo, "orpo": _orpo}
