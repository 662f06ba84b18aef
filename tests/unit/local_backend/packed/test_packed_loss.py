"""The packed way against the plain one: the same loss and the same gradients, however it is cut."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from local_backend.data.batches import Example, collate
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel
from local_backend.packed import layout as packing
from local_backend.packed import llama
from local_backend.settings import LoraSettings
from local_backend.training.loss import PackedLoss, PaddedLoss, make_loss, summed_cross_entropy

CPU = torch.device("cpu")
SOME = ("q_proj", "v_proj", "down_proj")
VOCABULARY = 300


def example(length: int, first: int, ids: Any = None, seed: int = 0) -> Example:
    """A sequence that learns from token `first` on; `ids` are what it begins with."""
    found = np.random.default_rng([length, first, seed]).integers(0, VOCABULARY, length)
    if ids is not None:
        found[: len(ids)] = ids
    return Example(found.astype(np.int32), np.arange(length) >= first)


HEAD = np.random.default_rng(5).integers(0, VOCABULARY, 20)
SETS = {
    "one": [example(17, 9)],
    "short and long": [example(n, 1 + n // 2, seed=n) for n in (3, 5, 8, 13, 21, 34, 55, 89)],
    "a beginning shared": [example(n, 24, HEAD) for n in (26, 30, 31, 49)],
    "the same but for the end": [example(40, 39, np.arange(39), seed=n) for n in range(5)],
}


def model_of(folder: Path, what: str) -> Any:
    """The tiny model, made ready; its adapters have taken a step from zero."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.use_cache = False
    if what != "full":
        lora.attach_adapters(
            model, LoraSettings(4, 8, 0.0, "all-linear" if what == "lora" else SOME), 1
        )
        for _, layer in lora.lora_layers(model):
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model


def loss_and_gradients(loss: torch.Tensor, model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    learning = {name: p for name, p in model.named_parameters() if p.requires_grad}
    found = torch.autograd.grad(loss, list(learning.values()))
    return loss.item(), dict(zip(learning, found, strict=True))


@pytest.mark.parametrize("long", [packing.MAX_DENSE_ROW, 8])
@pytest.mark.parametrize("thrifty", [False, True])
@pytest.mark.parametrize("what", ["lora", "some", "full"])
@pytest.mark.parametrize("name", SETS)
def test_packed_is_plain(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    what: str,
    thrifty: bool,
    long: int,
) -> None:
    monkeypatch.setattr(packing, "MAX_DENSE_ROW", long)
    model, records = model_of(tiny_model, what), SETS[name]
    expected, gradients = loss_and_gradients(
        summed_cross_entropy(model, collate(records, 0, CPU)), model
    )
    fast = llama.PackedLlama(model, torch.float32)
    fast.gradient_checkpointing = thrifty
    found, mine = loss_and_gradients(fast.summed_loss(packing.pack_examples(records, CPU)), model)
    assert found == pytest.approx(expected, rel=1e-5)
    for part, gradient in gradients.items():
        torch.testing.assert_close(mine[part], gradient, atol=1e-3, rtol=1e-3)
    with torch.inference_mode():
        assert fast.summed_loss(packing.pack_examples(records, CPU)).item() == pytest.approx(
            expected, rel=1e-5
        )


def test_packed_records_have_the_mean_loss_of_separate_ones(tiny_model: Path) -> None:
    fast = llama.PackedLlama(model_of(tiny_model, "lora"), torch.float32)
    for records in SETS.values():
        together = fast.summed_loss(packing.pack_examples(records, CPU)).item()
        apart = sum(fast.summed_loss(packing.pack_examples([one], CPU)).item() for one in records)
        learned = sum(int(one.loss_mask.sum()) for one in records)
        assert together / learned == pytest.approx(apart / learned, abs=1e-5)


@given(st.lists(st.tuples(st.integers(2, 60), st.integers(0, 30), st.integers(1, 59)), min_size=1))
@settings(deadline=None)
def test_every_token_is_there_once_and_predicts_its_next(
    shapes: list[tuple[int, int, int]],
) -> None:
    records = [
        example(length, min(first, length - 1), HEAD[: min(shared, length, 20)], seed=n)
        for n, (length, shared, first) in enumerate(shapes)
    ]
    layout, common = packing.pack_examples(records, CPU), packing.shared_prefix_length(records)
    real = packing.count_packed_tokens(records)
    assert real < len(layout.ids) <= real + packing.PAD_MULTIPLE
    assert len(layout.ids) % packing.PAD_MULTIPLE == 0
    flat = torch.cat([group.token_indices.flatten() for group in layout.row_groups])
    assert sorted(flat[flat < real].tolist()) == list(range(real))
    assert set(flat[flat >= real].tolist()) <= {len(layout.ids) - 1}
    assert sorted(layout.targets.tolist()) == sorted(
        int(i) for one in records for i in one.ids[one.loss_mask]
    )
    for place, target in zip(layout.logit_positions.tolist(), layout.targets.tolist(), strict=True):
        assert common <= place or common == 0
        assert layout.ids[place + 1] == target
        assert layout.positions[place + 1] == layout.positions[place] + 1
    assert all((one.ids[:common] == records[0].ids[:common]).all() for one in records)
    assert not any(one.loss_mask[: common + 1].any() for one in records if common)


def test_small_updates_are_not_lost_in_bfloat16(tiny_model: Path) -> None:
    """Added to what is rounded already, an update far below its last digit would vanish."""
    from local_backend.packed.llama import FusedProjection

    torch.manual_seed(3)
    base = torch.nn.Linear(64, 64, bias=False).bfloat16().requires_grad_(False)
    layer = lora.LoraLinear(base, 4, 4, 0.0)
    torch.nn.init.constant_(layer.lora_B, 2e-4)
    x = torch.randn(512, 64).bfloat16()
    exact = (x.float() @ layer.base_layer.weight.float().T).detach()
    update = (x.float() @ layer.lora_A.T @ layer.lora_B.T).detach()
    with torch.no_grad():
        found = FusedProjection([layer], torch.bfloat16)(x).float() - exact
        added = layer(x).float() - exact
    share = (found * update).sum() / update.square().sum()
    lost = (added * update).sum() / update.square().sum()
    assert share == pytest.approx(1.0, abs=0.15) and lost < 0.6


def test_the_optimizers_changes_are_seen_at_the_next_step(tiny_model: Path) -> None:
    model = model_of(tiny_model, "lora")
    fast = llama.PackedLlama(model, torch.float32)
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=0.05, fused=True)
    for records in (SETS["one"], SETS["short and long"]):
        fast.summed_loss(packing.pack_examples(records, CPU)).backward()
        optimizer.step()
        assert fast.summed_loss(packing.pack_examples(records, CPU)).item() == pytest.approx(
            summed_cross_entropy(model, collate(records, 0, CPU)).item(), rel=1e-5
        )


def test_dropout_falls_on_the_updates_alone(tiny_model: Path) -> None:
    model = model_of(tiny_model, "lora")
    for _, layer in lora.lora_layers(model):
        layer.dropout = 0.5
    fast, layout = (
        llama.PackedLlama(model.train(), torch.float32),
        packing.pack_examples(SETS["one"], CPU),
    )
    torch.manual_seed(1)
    first = fast.summed_loss(layout)
    torch.manual_seed(1)
    assert first.item() == fast.summed_loss(layout).item() != fast.summed_loss(layout).item()
    first.backward()
    model.eval()
    for _, layer in lora.lora_layers(model):
        layer.dropout = 0.0
    torch.manual_seed(2)
    assert fast.summed_loss(layout).item() == pytest.approx(
        summed_cross_entropy(model, collate(SETS["one"], 0, CPU)).item(), rel=1e-5
    )


def test_a_model_of_another_shape_goes_the_plain_way(tiny_model: Path) -> None:
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=128, n_embd=16, n_layer=1, n_head=2, bos_token_id=None
    )
    other = GPT2LMHeadModel(config).train()
    lora.attach_adapters(other, LoraSettings(2, 4, 0.0, "all-linear"), 1)
    ways = [
        make_loss(LoadedModel(model, tokenizer, "", [0], False), torch.float32, CPU)
        for model in (model_of(tiny_model, "lora"), other)
    ]
    assert [type(way) for way in ways] == [PackedLoss, PaddedLoss]
    ways[1](SETS["short and long"]).backward()
    moved = [layer.lora_B.grad.abs().sum() for _, layer in lora.lora_layers(other)]
    assert len(moved) == 4 and all(moved)
    assert (
        ways[0].enable_gradient_checkpointing()
        and not ways[0].enable_gradient_checkpointing()
        and not ways[1].enable_gradient_checkpointing()
    )
