"""How the next token is drawn from logits."""

from __future__ import annotations

import pytest
import torch

from local_backend.serving.choose import RowSampling, draw_token

LOGITS = torch.tensor([0.5, 4.0, -3.0, 3.9])


@pytest.mark.parametrize("top_p", [0.5, 1.0])
@pytest.mark.parametrize("temperature", [1e-300, 1e-45, 1e-38, 1e-10, 1e-4])
def test_the_lower_the_temperature_the_surer_is_the_best_token(
    temperature: float, top_p: float
) -> None:
    for seed in range(20):
        assert draw_token(LOGITS, RowSampling(temperature, top_p, seed=seed)) == 1
        assert draw_token(LOGITS, RowSampling(temperature, 1.0, 3, seed)) == 1


def test_all_tokens_are_drawn_as_often_as_their_probability_says() -> None:
    row = RowSampling(2.0, seed=5)
    drawn = [draw_token(LOGITS, row) for _ in range(4000)]
    shares = torch.bincount(torch.tensor(drawn), minlength=4) / len(drawn)
    assert torch.allclose(shares, (LOGITS / 2).softmax(-1), atol=0.03)
