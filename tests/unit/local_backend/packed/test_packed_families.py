"""Every family of the packed path against transformers' own forward pass, record by record."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from tiny import build_tokenizer

from local_backend.data.examples import Example
from local_backend.inference.sampler import make_sampler
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel
from local_backend.models.sampling import Sampling
from local_backend.packed import FAMILIES, PackedLoss, attention, layout, unsupported_reason
from local_backend.packed import kernels as kernels_module
from local_backend.packed.kernels import Kernels
from local_backend.packed.kernels.compile import compile_kernels
from local_backend.settings import LoraSettings
from local_backend.training.loss import make_loss
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
OBJECTIVE = find_objective("FINE_TUNING")
VOCABULARY, LAYERS = 120, 4
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0}
SCALED = {"original_max_position_embeddings": 64}
LLAMA3 = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0}
LONGROPE = {"short_factor": [1.0, 1.5, 2.0], "long_factor": [2.0, 3.0, 4.0]}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2}
TYPES = ["sliding_attention", "full_attention"] * 2
VARIANTS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama, llama3": {"rope_parameters": LLAMA3 | {"high_freq_factor": 4.0} | SCALED},
    "llama, yarn": {"rope_parameters": YARN | SCALED},
    "llama, linear": {"rope_parameters": YARN | {"rope_type": "linear"}},
    "llama, dynamic": {"rope_parameters": YARN | {"rope_type": "dynamic"}},
    "llama, tied, biases": {
        "tie_word_embeddings": True,
        "attention_bias": True,
        "mlp_bias": True,
    },
    "ministral": {"sliding_window": 7, "layer_types": TYPES, "head_dim": 8},
    "mistral": {"sliding_window": 7},
    "mistral, no window": {"sliding_window": None, "head_dim": 16},
    "qwen2": {"use_sliding_window": True, "sliding_window": 7, "max_window_layers": 2},
    "qwen3": {"head_dim": 16, "attention_bias": True},
    "qwen3, windows": {
        "head_dim": 8,
        "use_sliding_window": True,
        "sliding_window": 7,
        "max_window_layers": 1,
    },
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 16,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 24,
    },
    "gemma3_text": {"head_dim": 16, "sliding_window": 7, "layer_types": TYPES},
    "gemma3_text, capped": {
        "head_dim": 8,
        "sliding_window": 7,
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
    },
    "phi3": {"sliding_window": 7},
    "phi3, longrope": {
        "head_dim": 8,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "original_max_position_embeddings": 40,
        }
        | LONGROPE,
        "original_max_position_embeddings": 40,
    },
    "granite": {
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.5,
    },
    "olmo2": {},
    "olmo3": {
        "sliding_window": 7,
        "layer_types": TYPES,
        "rope_parameters": {
            "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
            "full_attention": YARN | SCALED,
        },
    },
    "smollm3": {"no_rope_layers": [1, 0, 1, 0], "use_sliding_window": False},
    "smollm3, windows": {
        "no_rope_layers": [1, 0, 1, 0],
        "use_sliding_window": True,
        "sliding_window": 7,
        "layer_types": TYPES,
    },
    "seed_oss": {"head_dim": 8, "residual_dropout": 0.0, "attention_dropout": 0.0},
    "glm4": {"head_dim": 8},
    "ernie4_5": {"head_dim": 8},
    "helium": {"head_dim": 8},
    "arcee": {},
    "cohere": {"logit_scale": 0.3},
    "cohere2": {"logit_scale": 0.3, "sliding_window": 7, "layer_types": TYPES},
    "exaone4": {"sliding_window": 7, "layer_types": TYPES},
    "exaone4, no window": {"sliding_window": None, "layer_types": TYPES[1:2] * LAYERS},
    "gpt_oss": EXPERTS
    | {
        "head_dim": 8,
        "num_local_experts": 4,
        "sliding_window": 7,
        "rope_parameters": YARN | SCALED | {"truncate": False, "beta_fast": 32.0, "beta_slow": 1.0},
    },
    "granitemoe": {
        "num_local_experts": 4,
        "embedding_multiplier": 3.0,
        "residual_multiplier": 0.3,
        "attention_multiplier": 0.2,
        "logits_scaling": 2.5,
    },
    "mixtral": EXPERTS | {"num_local_experts": 4},
    "nemotron": {"partial_rotary_factor": 0.5},
    "olmo": {},
    "olmoe": EXPERTS,
    "qwen2_moe": EXPERTS | {"moe_intermediate_size": 24, "shared_expert_intermediate_size": 16},
    "qwen3_moe": EXPERTS | {"moe_intermediate_size": 24, "mlp_only_layers": [1]},
    "stablelm": {"partial_rotary_factor": 0.5, "use_qkv_bias": True},
    "starcoder2": {"sliding_window": 7},
}
"""Configurations by the name of the family and what is particular about them."""
HEAD = np.random.default_rng(5).integers(3, VOCABULARY, 20)


def example(length: int, first: int, seed: int, ids: Any = ()) -> Example:
    tokens = np.random.default_rng([length, first, seed]).integers(3, VOCABULARY, length)
    tokens[: len(ids)] = ids
    return Example(tokens.astype(np.int32), np.arange(length) >= first)


RECORDS = {
    "of all lengths": [example(n, 1 + n // 3, n) for n in (4, 9, 23, 30, 55)],
    "with a shared prefix": [example(n, 24, n, HEAD) for n in (27, 31, 49)],
}


def build(name: str, trained: str) -> Any:
    """Return a random model of a family whose norms, biases and adapters all do something."""
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    config = AutoConfig.for_model(name.split(",")[0], **SIZES | VARIANTS[name])
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight), alpha=0.2)
    if trained == "lora":
        lora.attach_adapters(model, LoraSettings(3, 6, 0.0, "all-linear"), 1)
        for _, layer in lora.lora_layers(model):
            torch.nn.init.normal_(layer.lora_B, std=0.1)
    model.config.use_cache = False
    return model.train()


def own_loss(model: Any, records: Sequence[Example]) -> torch.Tensor:
    """Return the summed loss by the model's own forward pass, of each record alone."""
    total = torch.zeros(())
    for record in records:
        ids = torch.tensor(record.ids.astype(np.int64))[None]
        logits = model(input_ids=ids).logits[0, :-1]
        losses = torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none")
        total = total + losses[torch.tensor(record.loss_mask[1:])].sum()
    return total


def gradients(loss: torch.Tensor, model: Any) -> dict[str, torch.Tensor]:
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return dict(zip(trained, torch.autograd.grad(loss, list(trained.values())), strict=True))


def test_every_family_of_the_table_is_tested() -> None:
    assert {name.split(",")[0] for name in VARIANTS} == set(FAMILIES)


@pytest.mark.parametrize("trained", ["full", "lora"])
@pytest.mark.parametrize("name", VARIANTS)
def test_losses_and_gradients_are_those_of_the_models_own_forward_pass(
    monkeypatch: pytest.MonkeyPatch, name: str, trained: str
) -> None:
    model = build(name, trained)
    if name == "gpt_oss" and trained == "full":
        model.model.layers.requires_grad_(False)  # sinks are not trained
        model.model.layers[0].self_attn.q_proj.requires_grad_(True)
    assert unsupported_reason(model) is None
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    for records in RECORDS.values():
        expected = own_loss(model, records)
        reference = gradients(expected, model)
        for dense in (layout.MAX_DENSE_ROW, 8):  # 8: long rows have attention of their own
            with monkeypatch.context() as patch:
                patch.setattr(layout, "MAX_DENSE_ROW", dense)
                patch.setattr(attention, "QUERY_CHUNK", 16)
                loss = packed(records)
            assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
            for part, gradient in gradients(loss, model).items():
                scale = float(reference[part].abs().max()) + 1e-6
                error = float((gradient - reference[part]).abs().max()) / scale
                assert error < 5e-5, (part, error, dense)


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Kernels:
    """Return the compiled kernels."""
    folder = tmp_path_factory.mktemp("kernels") / "key"
    compile_kernels(folder)
    return Kernels(folder)


@pytest.mark.parametrize("name", VARIANTS)
def test_compiled_kernels_compute_every_family(
    monkeypatch: pytest.MonkeyPatch, name: str, kernels: Kernels
) -> None:
    model = build(name, "lora")
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    for records in RECORDS.values():
        expected = packed(records)
        reference = gradients(expected, model)
        with monkeypatch.context() as patch:
            patch.setattr(kernels_module, "_current", kernels)
            loss = packed(records)
            computed = gradients(loss, model)
        assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
        for part, gradient in computed.items():
            scale = float(reference[part].abs().max()) + 1e-6
            assert float((gradient - reference[part]).abs().max()) / scale < 5e-5, part


@pytest.mark.parametrize("name", ["gemma3_text", "qwen3_moe"])
def test_checkpointing_changes_no_gradient(name: str) -> None:
    model = build(name, "lora")
    packed = PackedLoss(model, OBJECTIVE, torch.float32, CPU, reason="tested")
    records = RECORDS["of all lengths"]
    expected = gradients(packed(records), model)
    packed.enable_gradient_checkpointing()
    torch.testing.assert_close(gradients(packed(records), model), expected)


def test_sinks_are_not_trained() -> None:
    assert "does not train the sinks" in (unsupported_reason(build("gpt_oss", "full")) or "")


@pytest.mark.parametrize("name", VARIANTS)
def test_sampled_answers_are_those_of_the_models_own_forward_pass(name: str) -> None:
    model = build(name, "lora")
    loaded = LoadedModel(model, build_tokenizer(), "", [2], False)
    answers = []
    for packed in (True, False):
        loss = make_loss(loaded, OBJECTIVE, packed, torch.float32, CPU)
        sampler = make_sampler(loaded, loss, torch.float32, CPU)
        prompts = [record.ids[:20].tolist() for record in RECORDS["of all lengths"][:4]]
        # Up to 38 tokens, because longrope changes its angles within an answer at 40.
        groups = sampler(prompts, 2, Sampling(18, (1, 2, 3, 4)))
        answers.append([answer.ids for group in groups for answer in group])
    assert answers[0] == answers[1]
