"""The packed path against the padded one: the same loss and gradients, however a batch is split."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from trainer_run import RunTrainer

from cloudft.backends.local.preflight import PACKED_FAMILIES
from local_backend.data.batches import collate
from local_backend.data.examples import Example
from local_backend.errors import TrainerError
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel
from local_backend.packed import FAMILIES, ModelFamily, PackedLoss, layout, unsupported_reason
from local_backend.packed.projections import FusedProjection
from local_backend.settings import LoraSettings
from local_backend.training.loss import OwnForwardLoss, choose_path, forward_padded, make_loss
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
SOME_LAYERS = ("q_proj", "v_proj", "down_proj")
VOCABULARY = 300
OBJECTIVE = find_objective("FINE_TUNING")


def example(length: int, first: int, ids: Any = None, seed: int = 0) -> Example:
    """Return a sequence with loss from token `first` on that begins with `ids`."""
    tokens = np.random.default_rng([length, first, seed]).integers(0, VOCABULARY, length)
    if ids is not None:
        tokens[: len(ids)] = ids
    return Example(tokens.astype(np.int32), np.arange(length) >= first)


HEAD = np.random.default_rng(5).integers(0, VOCABULARY, 20)
SETS = {
    "one": [example(17, 9)],
    "short and long": [example(n, 1 + n // 2, seed=n) for n in (3, 5, 8, 13, 21, 34, 55, 89)],
    "a shared prefix": [example(n, 24, HEAD) for n in (26, 30, 31, 49)],
    "all but the end shared": [example(40, 39, np.arange(39), seed=n) for n in range(5)],
}


def prepare_model(folder: Path, trained: str) -> Any:
    """Return the model in `folder` with trained layers; its adapters are not at zero any more."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.config.use_cache = False
    if trained != "full":
        targets = "all-linear" if trained == "lora" else SOME_LAYERS
        lora.attach_adapters(model, LoraSettings(4, 8, 0.0, targets), 1)
        for _, layer in lora.lora_layers(model):
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    return model


def packed_loss(model: Any, objective: Any = OBJECTIVE) -> PackedLoss:
    return PackedLoss(model, objective, torch.float32, CPU, reason="tested")


def padded_sum(model: Any, records: Sequence[Example]) -> torch.Tensor:
    return forward_padded(model, collate(records, 0, CPU)).sum()


def loss_and_gradients(loss: torch.Tensor, model: Any) -> tuple[float, dict[str, torch.Tensor]]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = torch.autograd.grad(loss, list(trained.values()))
    return loss.item(), dict(zip(trained, gradients, strict=True))


@pytest.mark.parametrize("dense", [layout.MAX_DENSE_ROW, 8])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("trained", ["lora", "some", "full"])
@pytest.mark.parametrize("name", SETS)
def test_packed_is_padded(
    tiny_model: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    trained: str,
    checkpointing: bool,
    dense: int,
) -> None:
    monkeypatch.setattr(layout, "MAX_DENSE_ROW", dense)
    model, records = prepare_model(tiny_model, trained), SETS[name]
    expected, gradients = loss_and_gradients(padded_sum(model, records), model)
    packed = packed_loss(model)
    if checkpointing:
        packed.enable_gradient_checkpointing()
    loss, packed_gradients = loss_and_gradients(packed(records), model)
    assert loss == pytest.approx(expected, rel=1e-5)
    for part, gradient in gradients.items():
        torch.testing.assert_close(packed_gradients[part], gradient, atol=1e-3, rtol=1e-3)
    with torch.inference_mode():
        assert packed(records).item() == pytest.approx(expected, rel=1e-5)


class WeightedAnswers:
    """An objective whose gradient differs from token to token."""

    def loss(self, examples: Sequence[Example], losses: Any) -> torch.Tensor:
        parts = losses.by_row()
        assert [len(part) for part in parts] == [int(e.loss_mask.sum()) for e in examples]
        return torch.stack(
            [(part * part).mean() * len(e.ids) for part, e in zip(parts, examples, strict=True)]
        ).sum()


@pytest.mark.parametrize("trained", ["lora", "full"])
@pytest.mark.parametrize("name", SETS)
def test_losses_by_row_are_those_of_the_padded_path(
    tiny_model: Path, name: str, trained: str
) -> None:
    model, records, objective = prepare_model(tiny_model, trained), SETS[name], WeightedAnswers()
    losses = forward_padded(model, collate(records, 0, CPU))
    expected, gradients = loss_and_gradients(objective.loss(records, losses), model)
    loss, packed_gradients = loss_and_gradients(packed_loss(model, objective)(records), model)
    assert loss == pytest.approx(expected, rel=1e-5)
    for part, gradient in gradients.items():
        scale = float(gradient.abs().max()) or 1.0
        torch.testing.assert_close(
            packed_gradients[part] / scale, gradient / scale, atol=1e-4, rtol=1e-3
        )


def test_packed_records_have_the_mean_loss_of_separate_ones(tiny_model: Path) -> None:
    packed = packed_loss(prepare_model(tiny_model, "lora"))
    for records in SETS.values():
        together = packed(records).item()
        separate = sum(packed([one]).item() for one in records)
        count = OBJECTIVE.count(records)
        assert together / count == pytest.approx(separate / count, abs=1e-5)


@given(st.lists(st.tuples(st.integers(2, 60), st.integers(0, 30), st.integers(1, 59)), min_size=1))
@settings(deadline=None)
def test_every_token_is_in_the_layout_once_and_predicts_its_next(
    shapes: list[tuple[int, int, int]],
) -> None:
    records = [
        example(length, min(first, length - 1), HEAD[: min(shared, length, 20)], seed=n)
        for n, (length, shared, first) in enumerate(shapes)
    ]
    packed, prefix = layout.pack_examples(records, CPU), layout.shared_prefix_length(records)
    real = layout.count_packed_tokens(records)
    assert real < len(packed.ids) <= real + layout.PAD_MULTIPLE
    assert len(packed.ids) % layout.PAD_MULTIPLE == 0
    flat = torch.cat([group.token_indices.flatten() for group in packed.row_groups])
    assert sorted(flat[flat < real].tolist()) == list(range(real))
    assert set(flat[flat >= real].tolist()) <= {len(packed.ids) - 1}
    assert sorted(packed.targets.tolist()) == sorted(
        int(i) for one in records for i in one.ids[one.loss_mask]
    )
    positions = packed.logit_positions.tolist()
    for position, target in zip(positions, packed.targets.tolist(), strict=True):
        assert prefix <= position or prefix == 0
        assert packed.ids[position + 1] == target
        assert packed.positions[position + 1] == packed.positions[position] + 1
    assert all((one.ids[:prefix] == records[0].ids[:prefix]).all() for one in records)
    assert not any(one.loss_mask[: prefix + 1].any() for one in records if prefix)


def test_small_updates_are_not_lost_in_bfloat16(tiny_model: Path) -> None:
    """Added to an already rounded output, an update far below its last digit would vanish."""
    torch.manual_seed(3)
    base = torch.nn.Linear(64, 64, bias=False).bfloat16().requires_grad_(False)
    layer = lora.LoraLinear(base, 4, 4, 0.0)
    torch.nn.init.constant_(layer.lora_B, 2e-4)
    x = torch.randn(512, 64).bfloat16()
    exact = (x.float() @ layer.base_layer.weight.float().T).detach()
    update = (x.float() @ layer.lora_A.T @ layer.lora_B.T).detach()
    with torch.no_grad():
        fused = FusedProjection([layer], torch.bfloat16)(x).float() - exact
        added = layer(x).float() - exact
    kept_share = (fused * update).sum() / update.square().sum()
    lost_share = (added * update).sum() / update.square().sum()
    assert kept_share == pytest.approx(1.0, abs=0.15) and lost_share < 0.6


def test_the_optimizers_changes_are_used_at_the_next_step(tiny_model: Path) -> None:
    model = prepare_model(tiny_model, "lora")
    packed = packed_loss(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=0.05, fused=True)
    for records in (SETS["one"], SETS["short and long"]):
        packed(records).backward()
        optimizer.step()
        assert packed(records).item() == pytest.approx(padded_sum(model, records).item(), rel=1e-5)


def test_dropout_applies_to_the_updates_alone(tiny_model: Path) -> None:
    model, records = prepare_model(tiny_model, "lora"), SETS["one"]
    for _, layer in lora.lora_layers(model):
        layer.dropout = 0.5
    packed = packed_loss(model.train())
    torch.manual_seed(1)
    first = packed(records)
    torch.manual_seed(1)
    assert first.item() == packed(records).item() != packed(records).item()
    first.backward()
    model.eval()
    for _, layer in lora.lora_layers(model):
        layer.dropout = 0.0
    torch.manual_seed(2)
    assert packed(records).item() == pytest.approx(padded_sum(model, records).item(), rel=1e-5)


@pytest.fixture
def gpt2(tiny_model: Path) -> LoadedModel:
    """Return a model with other blocks than Llama's."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    tokenizer = AutoTokenizer.from_pretrained(tiny_model)
    config = GPT2Config(
        vocab_size=VOCABULARY, n_positions=128, n_embd=16, n_layer=1, n_head=2, bos_token_id=None
    )
    model = GPT2LMHeadModel(config).train()
    lora.attach_adapters(model, LoraSettings(2, 4, 0.0, "all-linear"), 1)
    return LoadedModel(model, tokenizer, "", [0], False)


def test_local_packed_selects_the_path(tiny_model: Path, gpt2: LoadedModel) -> None:
    llama = LoadedModel(prepare_model(tiny_model, "lora"), gpt2.tokenizer, "", [0], False)
    paths = {
        (name, packed): choose_path(loaded, packed)
        for name, loaded in (("llama", llama), ("gpt2", gpt2))
        for packed in ("auto", False)
    }
    assert [path.is_packed for path in paths.values()] == [True, False, False, False]
    assert "llama" in paths["llama", "auto"].reason and "gpt2" in paths["gpt2", "auto"].reason
    assert paths["llama", False].reason == "local.packed is false"
    assert choose_path(llama, True).is_packed
    with pytest.raises(TrainerError, match=r"local.packed is true.*families.*not gpt2"):
        choose_path(gpt2, True)


def test_another_family_trains_by_its_own_forward_pass(gpt2: LoadedModel) -> None:
    loss = make_loss(gpt2, OBJECTIVE, "auto", torch.float32, CPU)
    assert isinstance(loss, OwnForwardLoss) and not loss.enable_gradient_checkpointing()
    loss(SETS["short and long"]).backward()
    moved = [layer.lora_B.grad.abs().sum() for _, layer in lora.lora_layers(gpt2.model)]
    assert len(moved) == 4 and all(moved)


def test_the_log_names_the_path_and_the_curves_are_equal(train: RunTrainer) -> None:
    runs = {packed: train(12, batchSize=6, packed=packed) for packed in (True, False, "auto")}
    assert "training on the packed path: the packed path supports this llama" in runs["auto"].log
    assert "training on the padded path: local.packed is false" in runs[False].log
    assert [run.summary["packed"] for run in runs.values()] == [True, False, True]
    assert runs[False].losses() == pytest.approx(runs[True].losses(), abs=1e-4)


def test_packed_true_is_refused_for_a_model_it_cannot_train(
    train: RunTrainer, gpt2: LoadedModel, tmp_path: Path
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=len(gpt2.tokenizer), n_embd=16, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "gpt2")
    gpt2.tokenizer.save_pretrained(tmp_path / "gpt2")
    message = train(4, model=tmp_path / "gpt2", packed=True).message
    assert "local.packed is true" in message and "set local.packed: auto" in message


def make_family_model(tmp_path: Path, **changes: Any) -> Any:
    """Return a random Mistral of the tiny model's size."""
    from transformers import MistralConfig, MistralForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8}
    window = {"sliding_window": None} | changes
    config = MistralConfig(vocab_size=VOCABULARY, **sizes, **heads, **window)
    return MistralForCausalLM(config)


def test_a_family_is_added_by_a_line_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_family_model(tmp_path)
    model.config.model_type = "new-family"
    for block in model.model.layers:  # as a family with other module names has them
        block.attention, block.feed_forward = block.self_attn, block.mlp
    assert "not new-family" in (unsupported_reason(model) or "")
    family = ModelFamily(
        "new-family",
        qkv=("attention.q_proj", "attention.k_proj", "attention.v_proj"),
        attention="attention",
        attention_output="attention.o_proj",
        gate_up=("feed_forward.gate_proj", "feed_forward.up_proj"),
    )
    monkeypatch.setitem(FAMILIES, "new-family", family)
    assert unsupported_reason(model) is None
    records = SETS["short and long"]
    assert packed_loss(model)(records).item() == pytest.approx(
        padded_sum(model, records).item(), rel=1e-5
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({}, None),
        ({"sliding_window": 4096}, None),
        ({"attention_dropout": 0.1}, "no attention_dropout"),
        ({"hidden_act": "relu2"}, "silu, gelu.*, not relu2"),
    ],
    ids=["as-llama", "sliding-window", "dropout", "activation"],
)
def test_what_a_family_configures_differently_is_a_reason(
    tmp_path: Path, changes: dict[str, Any], reason: str | None
) -> None:
    found = unsupported_reason(make_family_model(tmp_path, **changes)) or ""
    assert re.search(reason or "^$", found), found


def test_check_knows_the_same_families() -> None:
    assert set(PACKED_FAMILIES) == set(FAMILIES)


def test_nothing_imports_the_packed_path_past_its_door() -> None:
    package = Path(layout.__file__).parents[1]
    sources = [
        path for path in package.rglob("*.py") if "packed" not in path.parts[len(package.parts) :]
    ]
    assert [path for path in sources if "local_backend.packed." in path.read_text()] == []
