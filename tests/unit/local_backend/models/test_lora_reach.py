"""What adapters reach in each kind of family: trained, merged, saved and loaded as one model."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import build_tokenizer
from trainer_run import RunTrainer

from local_backend.errors import TrainerError
from local_backend.export.export_model import export_model
from local_backend.export.options import ExportOptions
from local_backend.job_dir import JobDir
from local_backend.models import lora, lora_experts, merge_proof
from local_backend.models.lora_reach import measure_reach
from local_backend.models.target_modules import describe_job_adapters, select_targets
from local_backend.settings import LoraSettings
from local_backend.training.checkpoint import gather_trained_weights

VOCABULARY = 64
IDS = torch.arange(8, 40).view(2, 16)
LORA = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}
ALL_LINEAR = LoraSettings(4, 8, 0.0, "all-linear")
SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "initializer_range": 0.3,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 8,
    "kv_lora_rank": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 8,
    "n_routed_experts": 4,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
    "n_group": 1,
    "topk_group": 1,
}
BART = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
    "init_std": 0.3,
    "dropout": 0.0,
    "is_decoder": True,
    "is_encoder_decoder": False,
}
MAMBA = {"mamba_d_state": 8, "mamba_expand": 2, "mamba_dt_rank": 4, "use_mamba_kernels": False}
FAMILIES: dict[str, dict[str, Any]] = {
    "bart": BART,
    "deepseek_v3": SIZES | EXPERTS | LATENT,
    "gpt2": {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4}
    | {"initializer_range": 0.3, "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
    "gpt_oss": SIZES | EXPERTS | {"num_local_experts": 4, "num_key_value_heads": 2},
    "jamba": SIZES
    | MAMBA
    | {"num_experts": 4, "num_experts_per_tok": 2, "attn_layer_period": 2, "attn_layer_offset": 1},
    "llama": SIZES,
    "mixtral": SIZES | EXPERTS | {"num_local_experts": 4},
    "qwen3_moe": SIZES | EXPERTS | {"num_experts": 4},
}
ZAMBA2 = SIZES | {
    "num_hidden_layers": 4,
    "layers_block_type": ["mamba", "hybrid"] * 2,
    "hybrid_layer_ids": [1, 3],
    "num_mem_blocks": 1,
    "mamba_d_state": 8,
    "mamba_d_conv": 4,
    "mamba_expand": 2,
    "mamba_ngroups": 1,
    "n_mamba_heads": 4,
    "use_mamba_kernels": False,
    "use_shared_attention_adapter": False,
    "adapter_rank": 4,
    "chunk_size": 16,
}
LEFT_OUT = {
    "bart": {f"encoder_attn.{part}_proj": "gets no gradient" for part in ("k", "out", "q", "v")},
    "deepseek_v3": {"mlp.gate.weight": "router"},
    "gpt_oss": {"mlp.router.weight": "router"},
    "jamba": {
        "feed_forward.router.weight": "router",
        "mamba.A_log": "no linear layer: JambaMambaMixer",
        "mamba.conv1d.weight": "no linear layer: Conv1d",
        "mamba.dt_proj": "gets no gradient",
    },
    "mixtral": {"mlp.gate.weight": "router"},
    "qwen3_moe": {"mlp.gate.weight": "router"},
}


def build(family: str, settings: dict[str, Any] | None = None) -> Any:
    """A random model of a family, its logits large enough that an adapter moves them."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    torch.manual_seed(0)
    config = CONFIG_MAPPING[family](**(settings or FAMILIES[family]), use_cache=False)
    return AutoModelForCausalLM.from_config(config).eval()


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS, use_cache=False).logits


def fit(model: Any, steps: int = 4) -> None:
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-2)
    for _ in range(steps):
        out = model(input_ids=IDS, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(out.flatten(0, 1), IDS[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_trained_adapter_is_one_model_merged_saved_loaded_and_in_peft(
    family: str, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = build(family)
    fresh = copy.deepcopy(model)
    reach = lora.attach_adapters(model, ALL_LINEAR, seed=1)
    assert {kind.name: kind.reason for kind in reach.left_out} == LEFT_OUT.get(family, {})
    assert reach.share == pytest.approx(1 - sum(kind.share for kind in reach.left_out))
    torch.testing.assert_close(logits(model), logits(fresh))
    fit(model)
    expected = logits(model)
    assert not torch.allclose(expected, logits(fresh), atol=0.1)
    for name, layer in lora.lora_layers(model):
        assert layer.lora_A.grad is not None and layer.lora_B.any(), name

    lora.save_adapter(model, ALL_LINEAR, tmp_path, "the base", gather_trained_weights(model))
    theirs = PeftModel.from_pretrained(copy.deepcopy(fresh), str(tmp_path))
    torch.testing.assert_close(logits(theirs), expected, atol=1e-4, rtol=1e-4)
    again = copy.deepcopy(fresh)
    lora.load_adapter(again, tmp_path)
    assert torch.equal(logits(again), expected)
    with lora.disable_adapters(again):
        torch.testing.assert_close(logits(again), logits(fresh))

    merge_proof.merge_adapters(again)
    assert not list(lora.lora_layers(again))
    torch.testing.assert_close(logits(again), expected, atol=1e-4, rtol=1e-4)
    again.save_pretrained(tmp_path / "merged")
    merge_proof.check_saved_model(again, tmp_path / "merged")
    read = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(read), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_check_without_weights_finds_what_the_trainer_finds(
    family: str, tmp_path: Path
) -> None:
    model = build(family)
    model.save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    request = {
        "model": {"name": family, "weights": [{"kind": "folder", "path": str(tmp_path)}]},
        "lora": LORA,
    }
    measured = measure_reach(model, select_targets(model, ALL_LINEAR)).to_json()
    assert describe_job_adapters(request) == measured
    without_experts = describe_job_adapters({**request, "method": "qlora"})
    has_experts = bool(lora_experts.find_expert_parameters(model))
    assert (without_experts != measured) is has_experts


@pytest.mark.parametrize("family", ["gpt_oss", "qwen3_moe"])
def test_the_update_of_each_experts_tokens_is_that_of_its_weights(
    family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows of an expert through A and B, against the module itself with W + s B A."""
    model = build(family)
    lora.attach_adapters(model, ALL_LINEAR, seed=1)
    fit(model, 1)
    results = []
    for is_standard in (True, False):
        if not is_standard:
            monkeypatch.setattr(lora_experts, "_is_standard", lambda _holder: False)
        model.zero_grad()
        out = model(input_ids=IDS, use_cache=False).logits
        out.square().mean().backward()
        gradients = [
            layer.lora_B.grad.clone()
            for _, layer in lora.lora_layers(model)
            if isinstance(layer, lora_experts.LoraExperts)
        ]
        results.append((out.detach(), *gradients))
    assert len(results[0]) == 5
    torch.testing.assert_close(results[0], results[1], atol=1e-5, rtol=1e-4)


def test_layers_that_share_weights_are_left_out_and_their_merge_is_refused(tmp_path: Path) -> None:
    """peft 0.21: each of the layers' updates is added to the one weight."""
    model = build("zamba2", ZAMBA2)
    reach = lora.attach_adapters(model, ALL_LINEAR, seed=1)
    shared = {k.name for k in reach.left_out if k.reason == "weights shared between layers"}
    assert {"shared_transformer.self_attn.q_proj", "shared_transformer.feed_forward.down_proj"} <= (
        shared
    )
    fit(model)
    expected = logits(model)
    merge_proof.merge_adapters(model)
    torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)

    named = build("zamba2", ZAMBA2)
    reach = lora.attach_adapters(named, LoraSettings(4, 8, 0.0, ("q_proj", "in_proj")), seed=1)
    assert "can't be merged, as they share weights: shared_transformer.self_a" in reach.describe()
    fit(named)
    expected = logits(named)
    with pytest.raises(TrainerError, match="share weights") as caught:
        merge_proof.merge_adapters(named)
    assert "shared_transformer.self_attn.q_proj" in caught.value.message
    assert "in_proj" not in caught.value.message and "all-linear" in caught.value.fix
    torch.testing.assert_close(logits(named), expected)


def test_a_job_with_experts_is_trained_and_exported(train: RunTrainer, tmp_path: Path) -> None:
    tokenizer = build_tokenizer()
    tokens = {"vocab_size": len(tokenizer), "eos_token_id": tokenizer.eos_token_id}
    settings = FAMILIES["qwen3_moe"] | tokens | {"bos_token_id": None, "pad_token_id": None}
    model = tmp_path / "model"
    build("qwen3_moe", settings).save_pretrained(model)
    tokenizer.save_pretrained(model)
    run = train(8, model=model, epochCount=2, lora=LORA | {"dropout": 0.1})
    assert run.status == "Completed", run.log
    line = "of the weights are under an adapter (12 layers); left out: mlp.gate.weight (router)"
    assert line in run.log
    assert run.summary["adapters"]["leftOut"][0]["name"] == "mlp.gate.weight"
    proof = export_model(JobDir(run.path), tmp_path / "out", ExportOptions())
    assert proof["equalGreedyAnswers"] == 8


def test_names_of_layers_without_a_gradient_are_an_error() -> None:
    with pytest.raises(TrainerError, match=r"get no gradient.*: dt_proj\.") as caught:
        lora.attach_adapters(build("jamba"), LoraSettings(4, 8, 0.0, ("q_proj", "dt_proj")), 1)
    assert "leave out dt_proj" in caught.value.fix
    named = LoraSettings(4, 8, 0.0, ("k_proj", "q_proj"))
    selection = select_targets(build("bart"), named)
    assert {name.split(".")[-2] for name in selection.targets} == {"self_attn"}
    assert set(selection.left_out.values()) == {"gets no gradient"}


def test_stacked_experts_are_named_like_layers(tmp_path: Path) -> None:
    model = build("deepseek_v3")
    named = LoraSettings(4, 8, 0.1, ("down_proj",))
    lora.attach_adapters(model, named, seed=1)
    assert sorted(type(layer).__name__ for _, layer in lora.lora_layers(model)) == [
        "LoraExperts",
        "LoraLinear",
        "LoraLinear",
    ]
    lora.save_adapter(model, named, tmp_path, "the base", gather_trained_weights(model))
    saved = json.loads((tmp_path / lora.ADAPTER_CONFIG).read_text())
    # PEFT refuses dropout on parameters, and takes a bare down_proj for the experts alone.
    assert (saved["lora_dropout"], saved["target_modules"]) == (0.0, [])
    assert saved["target_parameters"] == ["down_proj", "down_proj.weight"]


def test_a_merge_that_is_another_model_is_refused_with_its_layers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = build("llama")
    lora.attach_adapters(model, ALL_LINEAR, seed=1)
    fit(model)
    merge = lora.LoraLinear.merge

    def merges_badly(layer: lora.LoraLinear) -> torch.nn.Module:
        merged = merge(layer)
        if layer is model.model.layers[1].mlp.down_proj:
            merged.weight.data.mul_(1.1)
        return merged

    monkeypatch.setattr(lora.LoraLinear, "merge", merges_badly)
    with pytest.raises(TrainerError, match=r"differ are model\.layers\.1\.mlp\.down_proj\."):
        merge_proof.merge_adapters(model)
    model.save_pretrained(tmp_path)
    merge_proof.check_saved_model(model, tmp_path)
    model.lm_head.weight.data.mul_(1.1)
    with pytest.raises(TrainerError, match="another one when it is read back"):
        merge_proof.check_saved_model(model, tmp_path)
