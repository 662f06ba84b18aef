"""The loss of a batch, compared with the definition over all logits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from local_backend.data.batches import (
    IGNORE_INDEX,
    MicroBatchLimit,
    collate,
    split_into_micro_batches,
)
from local_backend.data.examples import Example
from local_backend.training.loss import summed_cross_entropy

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model)


def examples(count: int = 7) -> list[Example]:
    """Return sequences of 3 to 30 tokens with loss on a stretch at the end, as answers are."""
    random = np.random.default_rng(3)
    made = []
    for _ in range(count):
        length = int(random.integers(3, 31))
        loss_mask = np.arange(length) >= int(random.integers(1, length))
        made.append(Example(random.integers(0, 300, length).astype(np.int32), loss_mask))
    return made


def plain_loss(model: Any, made: list[Example]) -> torch.Tensor:
    """Return the loss of one sequence at a time, with all logits and no padding."""
    total = torch.zeros(())
    for example in made:
        ids = torch.tensor(example.ids.astype(np.int64))[None]
        labels = torch.where(torch.tensor(example.loss_mask), ids[0], IGNORE_INDEX)
        logits = model(input_ids=ids).logits[0].float()
        total = total + F.cross_entropy(
            logits[:-1], labels[1:], ignore_index=IGNORE_INDEX, reduction="sum"
        )
    return total


@pytest.mark.parametrize("sequences", [1, 2, 3, 7])
@pytest.mark.parametrize("tokens", [16, 64, 10_000])
def test_however_a_batch_is_cut_loss_and_gradient_are_those_of_all_logits(
    model: Any, sequences: int, tokens: int
) -> None:
    made = examples()
    expected = plain_loss(model, made)
    gradient = torch.autograd.grad(expected, list(model.parameters()))

    loss = torch.zeros(())
    for part in split_into_micro_batches(made, MicroBatchLimit(sequences, tokens)):
        loss = loss + summed_cross_entropy(model, collate(part, 0, CPU))
    count = sum(int(example.loss_mask.sum()) for example in made)
    assert (loss / count).item() == pytest.approx((expected / count).item(), abs=1e-5)
    for mine, theirs in zip(
        torch.autograd.grad(loss, list(model.parameters())), gradient, strict=True
    ):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-4)


def test_only_positions_that_predict_reach_the_output_layer(model: Any) -> None:
    seen = []
    handle = model.lm_head.register_forward_hook(lambda _m, inputs, _o: seen.append(inputs[0]))
    try:
        ids = np.arange(20, dtype=np.int32)
        summed_cross_entropy(model, collate([Example(ids, ids >= 18)], 0, CPU))
    finally:
        handle.remove()
    assert [tuple(hidden.shape[:2]) for hidden in seen] == [(1, 2)]
