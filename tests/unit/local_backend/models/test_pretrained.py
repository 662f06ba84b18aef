"""A model folder is loaded whole, or refused by the names of what is wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_gguf
import torch
from safetensors.torch import load_file, save_file
from trainer_run import RunTrainer, TrainerRun

from local_backend.errors import TrainerError
from local_backend.export.export_model import export_model
from local_backend.export.options import ExportOptions
from local_backend.inference.model_variants import ModelVariants
from local_backend.job_dir import JobDir
from local_backend.models.load_model import load_model
from local_backend.models.pretrained import load_pretrained
from local_backend.models.weights import convert_once
from local_backend.settings import read_settings
from local_backend.training.probe import probe

WEIGHTS = "model.safetensors"
Tensors = dict[str, torch.Tensor]


def without(part: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: value for name, value in tensors.items() if part not in name}


def with_more(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {**tensors, name: torch.zeros(shape)}


def damaged(
    model: Path, to: Path, change: Callable[[Tensors], Tensors] | None = None, **config: Any
) -> Path:
    """Write a copy of a model folder with other tensors, or another configuration."""
    shutil.copytree(model, to)
    if change:
        weights = change(load_file(to / WEIGHTS))
        save_file(weights, to / WEIGHTS, metadata={"format": "pt"})
    content = json.loads((to / "config.json").read_text())
    (to / "config.json").write_text(json.dumps(content | config))
    return to


DAMAGES: dict[str, tuple[Callable[[Tensors], Tensors] | None, dict[str, Any], str]] = {
    "a-layer": (without("layers.1."), {}, r"9 tensors \(model.layers.1.input_layernorm.weight"),
    "a-tensor": (
        without("1.mlp.up"),
        {},
        r"\(model.layers.1.mlp.up_proj.weight\) is missing",
    ),
    "the-head": (without("lm_head"), {}, r"lm_head.weight\) is missing"),
    "the-embedding": (without("embed_tokens"), {}, r"model.embed_tokens.weight\) is missing"),
    "fewer-layers": (None, {"num_hidden_layers": 1}, r"9 tensors \(model.layers.1.* are left over"),
    "more-layers": (None, {"num_hidden_layers": 3}, r"9 tensors \(model.layers.2.* are missing"),
    "a-bias": (
        with_more("model.layers.0.mlp.up_proj.bias", 64),
        {},
        r"up_proj.bias\) is left over",
    ),
    "a-shape": (
        lambda tensors: tensors | {"model.norm.weight": torch.ones(5)},
        {},
        r"model.norm.weight \[5\] instead of \[32\]\) is of another shape",
    ),
    "vocabulary": (None, {"vocab_size": 500}, r"\d+, 32\] instead of \[500, 32\]"),
    "architecture": (
        None,
        {"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"]},
        r"Qwen2ForCausalLM with 2 layers.*6 tensors \(model.layers.0.self_attn.k_proj.bias",
    ),
}


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_model_that_is_not_whole_is_refused_by_name(
    tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    change, config, message = DAMAGES[kind]
    folder = damaged(tiny_model, tmp_path / "model", change, **config)
    with pytest.raises(TrainerError, match=message) as caught:
        load_model(str(folder), torch.float32, torch.device("cpu"))
    assert str(folder) in caught.value.message and caught.value.fix


def test_a_damaged_file_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = damaged(tiny_model, tmp_path / "model")
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(TrainerError, match="can't be loaded"):
        load_model(str(folder), torch.float32, torch.device("cpu"))


def test_a_tied_head_and_recomputed_buffers_need_not_be_in_the_file(
    tiny_model: Path, tmp_path: Path
) -> None:
    """Files of older transformers hold `inv_freq` of each layer; tied heads are saved once."""
    tied = damaged(tiny_model, tmp_path / "tied", without("lm_head"), tie_word_embeddings=True)
    loaded = load_model(str(tied), torch.float32, torch.device("cpu")).model
    assert loaded.lm_head.weight is loaded.model.embed_tokens.weight
    old = with_more("model.layers.0.self_attn.rotary_emb.inv_freq", 4)
    load_model(str(damaged(tiny_model, tmp_path / "old", old)), torch.float32, torch.device("cpu"))


FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {},
    "qwen2": {"tie_word_embeddings": True},
    "gemma3_text": {"head_dim": 8},
    "gpt2": {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {},
    "mixtral": {"num_local_experts": 4},
    "qwen3_moe": {"num_experts": 4, "moe_intermediate_size": 16, "head_dim": 8},
    "deepseek_v3": {
        **{"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "moe_intermediate_size": 16},
        **{"q_lora_rank": 16, "kv_lora_rank": 16, "first_k_dense_replace": 1},
        **{"qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8, "num_experts_per_tok": 2},
    },
    "bloom": {"n_layer": 2, "n_head": 4},
    "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32},
    "falcon": {},
    "mamba": {"state_size": 8},
}
"""Of each way in which transformers lays out, ties, renames or joins tensors, one. Of 189 families
152 were built small with 5.23: each loads what it saved, and none takes a missing tensor silently.
"""
SMALL = {
    **{"vocab_size": 96, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2},
    **{"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2},
}


@pytest.mark.parametrize("family", FAMILIES)
def test_what_a_family_saves_loads_and_with_a_tensor_less_it_is_refused(
    tmp_path: Path, family: str
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **SMALL | FAMILIES[family])
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(tmp_path)
    loaded = load_pretrained(tmp_path)
    for name, weight in model.named_parameters():
        assert torch.equal(weight, loaded.get_parameter(name)), name
    tensors = load_file(tmp_path / WEIGHTS)
    missing = sorted(tensors)[len(tensors) // 2]
    save_file(without(missing)(tensors), tmp_path / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(TrainerError):
        load_pretrained(tmp_path)


def test_a_missing_expert_is_named(tmp_path: Path) -> None:
    """transformers joins a layer's experts while it loads; it names none that it can't join."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model("mixtral", **SMALL | FAMILIES["mixtral"])
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    for missing, message in (
        ("1.block_sparse_moe.experts.2.w1.", r"experts.2.w1.weight\) is missing"),
        ("1.block_sparse_moe.experts.0.", r"3 tensors \(model.layers.1.block_sparse_moe.experts.0"),
        ("1.block_sparse_moe.experts.3.", r"layers.1.mlp.experts.* \[3, .* instead of \[4, "),
    ):
        kept = without(missing)(tensors)
        save_file(kept, tmp_path / WEIGHTS, metadata={"format": "pt"})
        with pytest.raises(TrainerError, match=message):
            load_pretrained(tmp_path)


@pytest.mark.parametrize("method", ["lora", "full"])
def test_training_fails_before_the_first_step(
    train: RunTrainer, tiny_model: Path, tmp_path: Path, method: str
) -> None:
    model = damaged(tiny_model, tmp_path / "model", without("layers.1.mlp.down_proj"))
    run = train(8, model=model, method=method)
    assert "(model.layers.1.mlp.down_proj.weight) is missing" in run.message
    assert run.curve_points() == [] and not (run.path / "checkpoints").exists()


def test_every_other_program_refuses_it_too(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path
) -> None:
    """generate and lm-eval use ModelVariants; export and probe load models themselves."""
    model = damaged(tiny_model, tmp_path / "model", without("lm_head"))
    job = tmp_path / "job"
    shutil.copytree(tuned.path, job)
    request = json.loads((job / "job.json").read_text())
    request["model"]["weights"] = [{"kind": "folder", "path": str(model)}]
    (job / "job.json").write_text(json.dumps(request))
    with pytest.raises(TrainerError, match=r"lm_head.weight\) is missing"):
        ModelVariants(JobDir(job), read_settings(JobDir(job)))
    with pytest.raises(TrainerError, match=r"lm_head.weight\) is missing"):
        export_model(JobDir(job), tmp_path / "out", ExportOptions())
    with pytest.raises(TrainerError, match=r"lm_head.weight\) is missing"):
        probe(JobDir(job), 1, lambda reply: None)


def test_tuned_weights_that_are_not_whole_are_refused(train: RunTrainer, tmp_path: Path) -> None:
    run = train(8, method="full", epochCount=1)
    weights = without("layers.0.")(load_file(run.model / WEIGHTS))
    save_file(weights, run.model / WEIGHTS, metadata={"format": "pt"})
    with pytest.raises(TrainerError, match=r"9 tensors \(model.layers.0"):
        ModelVariants(JobDir(run.path), read_settings(JobDir(run.path)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("layers.1."), "14 of its tensors are missing"),
        (without("layers.1.mlp.up_proj.lora_B"), "1 of its tensors are missing"),
        (with_more("base_model.model.model.layers.7.mlp.up_proj.lora_A.weight", 4, 32), "layers.7"),
        (with_more("base_model.model.lm_head.weight", 4), "there is no"),
        (
            lambda tensors: {name: value[:, :1] for name, value in tensors.items()},
            r"has the shape \[4, 1\] instead of",
        ),
    ],
    ids=["a-layer", "a-half", "another-layer", "a-head", "shapes"],
)
def test_an_adapter_that_is_not_whole_is_refused(
    tuned: TrainerRun, tmp_path: Path, change: Callable[[Tensors], Tensors], message: str
) -> None:
    job = tmp_path / "job"
    shutil.copytree(tuned.path, job)
    file = job / "artifacts" / "model" / "adapter_model.safetensors"
    save_file({n: t.contiguous() for n, t in change(load_file(file)).items()}, file)
    with pytest.raises(TrainerError, match=message):
        ModelVariants(JobDir(job), read_settings(JobDir(job)))


def test_an_adapter_is_no_model_to_train(tuned: TrainerRun, train: RunTrainer) -> None:
    """transformers would load its base beside it, from wherever the adapter's file says."""
    assert "is an adapter, not a whole model" in train(4, model=tuned.model).message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"without": ["blk.1."]}, r"9 tensors \(model.layers.1"),
        ({"without": ["token_embd"]}, r"model.embed_tokens.weight\) is missing"),
        ({"blocks": 1}, r"9 tensors \(blk.1.attn_k.weight, .* are left over"),
        ({"blocks": 3}, r"9 tensors \(model.layers.2"),
        (
            {"extra_tensors": {"blk.0.attn_output.bias": 32}},
            r"the file holds [\d,]+ numbers, the model",
        ),
    ],
    ids=["a-layer", "the-embedding", "fewer-layers", "more-layers", "a-bias"],
)
def test_a_gguf_file_that_is_not_whole_is_never_converted(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    """transformers 5.23 does not report unused tensors of a GGUF file at all."""
    gguf = tiny_gguf.write_gguf(tiny_model, tmp_path / "gguf", **changes)
    with pytest.raises(TrainerError, match=message):
        convert_once(gguf)
    assert [path.name for path in (tmp_path / "models").iterdir()] == [".lock"]


@pytest.mark.parametrize("tied", [False, True])
def test_a_whole_gguf_file_is_converted_and_trained_on(
    train: RunTrainer, tiny_model: Path, tmp_path: Path, tied: bool
) -> None:
    """Llama 3's file has the factors of its rope beside the weights: transformers computes them."""
    head = ["output.weight"] if tied else []
    changes: dict[str, Any] = {"extra_tensors": {"rope_freqs.weight": 4}}
    gguf = tiny_gguf.write_gguf(tiny_model, tmp_path / "gguf", without=head, **changes)
    assert train(8, model=gguf.parent, epochCount=1).status == "Completed"
