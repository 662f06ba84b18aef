"""llama.cpp computes from a GGUF file what transformers computes from the folder, by family."""

from __future__ import annotations

from pathlib import Path

import pytest
from llama_models import (
    FULL,
    GELU_TOLERANCE,
    SLIDING,
    TOLERANCE,
    WIDE_WINDOW,
    build_merged,
    largest_difference,
    write_and_run,
)

from local_backend.errors import TrainerError
from local_backend.export.gguf import write_gguf
from local_backend.export.gguf.families import GGUF_FAMILIES, TANH_GELU
from local_backend.packed import FAMILIES

WRITTEN = sorted(GGUF_FAMILIES)
KNOW_NO_WINDOW = sorted(name for name in WRITTEN if GGUF_FAMILIES[name].windows is None)


def test_every_family_of_the_fast_path_is_in_the_table() -> None:
    assert sorted(GGUF_FAMILIES) == sorted(FAMILIES)


@pytest.mark.parametrize("model_type", WRITTEN)
def test_log_probabilities_are_those_of_transformers(tmp_path: Path, model_type: str) -> None:
    family = GGUF_FAMILIES[model_type]
    changes = WIDE_WINDOW if model_type in KNOW_NO_WINDOW else {}
    model = build_merged(model_type, tmp_path / "m", **changes)
    summary, prompts, run = write_and_run(tmp_path / "m")
    worst, positions = largest_difference(model, prompts, run)
    tolerance = GELU_TOLERANCE if family.activations == TANH_GELU else TOLERANCE
    assert worst < tolerance
    assert positions >= len(prompts)
    assert summary["architecture"] == family.architecture
    assert summary["types"] == {"F32": summary["tensors"]}


@pytest.mark.parametrize("model_type", sorted({"mistral", "phi3", "qwen2", "starcoder2"}))
def test_context_of_a_file_ends_with_a_window_that_llama_cpp_does_not_know(
    tmp_path: Path, model_type: str
) -> None:
    model = build_merged(model_type, tmp_path / "m")
    summary, prompts, run = write_and_run(tmp_path / "m", lengths=[3])
    worst, _ = largest_difference(model, prompts, run)
    assert worst < GELU_TOLERANCE
    assert summary["contextLength"] == 8
    assert summary["notes"][0].startswith(
        "the file says 8 tokens of context, not 128: llama.cpp knows no"
    )


@pytest.mark.parametrize("model_type", WRITTEN)
def test_fewer_heads_of_keys_and_another_head_size(tmp_path: Path, model_type: str) -> None:
    family = GGUF_FAMILIES[model_type]
    changes: dict[str, object] = dict(WIDE_WINDOW) if model_type in KNOW_NO_WINDOW else {}
    if family.takes_grouped_heads:
        changes["num_key_value_heads"] = 2
    if family.takes_any_head_size:
        changes["head_dim"] = 16
    model = build_merged(model_type, tmp_path / "m", **changes)
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[9])
    assert largest_difference(model, prompts, run)[0] < GELU_TOLERANCE


@pytest.mark.parametrize(
    ("model_type", "kinds"), [("gemma2", [SLIDING, FULL] * 23), ("gemma3_text", [SLIDING] * 62)]
)
def test_gemma_of_27_billion_weights_divides_by_another_root(
    tmp_path: Path, model_type: str, kinds: list[str]
) -> None:
    model = build_merged(
        model_type,
        tmp_path / "m",
        num_hidden_layers=len(kinds),
        layer_types=kinds,
        head_dim=16,
        query_pre_attn_scalar=9,
        sliding_window=128,
    )
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[9], new_tokens=2)
    assert largest_difference(model, prompts, run)[0] < 0.05  # 46 and 62 tables of GELU


@pytest.mark.parametrize(
    ("model_type", "kinds"),
    [
        ("cohere2", [SLIDING, FULL]),
        ("exaone4", [SLIDING, SLIDING, SLIDING, FULL] * 16),
        ("gemma2", [SLIDING, FULL]),
        ("gemma3_text", [SLIDING, SLIDING, SLIDING, FULL]),
        ("gpt_oss", [FULL, SLIDING, SLIDING]),
        ("gemma3_text", [FULL, FULL]),
        ("gemma3_text", [SLIDING, SLIDING]),
        ("olmo3", [FULL, FULL]),
        ("olmo3", [SLIDING, FULL]),
    ],
)
def test_windows_are_where_the_model_has_them(
    tmp_path: Path, model_type: str, kinds: list[str]
) -> None:
    model = build_merged(
        model_type,
        tmp_path / "m",
        layer_types=kinds,
        num_hidden_layers=len(kinds),
        sliding_window=8,
    )
    summary, prompts, run = write_and_run(tmp_path / "m", lengths=[23])
    worst, _ = largest_difference(model, prompts, run)
    assert worst < GELU_TOLERANCE
    assert summary["contextLength"] == 128
    assert not summary["notes"]


@pytest.mark.parametrize(
    ("model_type", "changes", "named"),
    [
        ("cohere", {"use_qk_norm": True}, "use_qk_norm True"),
        ("cohere2", {"layer_types": [FULL] * 4}, "layers without a window alone"),
        ("exaone4", {"sliding_window": 8}, "sliding windows"),
        ("gpt_oss", {"layer_types": [FULL, FULL]}, "layers without a window alone"),
        ("gemma2", {"layer_types": [FULL, SLIDING]}, "layer_types"),
        ("gemma2", {"attn_logit_softcapping": None}, "no attn_logit_softcapping"),
        ("olmo2", {"head_dim": 16}, "heads of 16 dimensions"),
        ("olmoe", {"num_key_value_heads": 2}, "num_key_value_heads 2"),
        ("exaone4", {"layer_types": [SLIDING, FULL], "sliding_window": 8}, "sliding windows"),
        ("llama", {"hidden_act": "gelu"}, "the activation 'gelu'"),
        ("olmoe", {"norm_topk_prob": True}, "norm_topk_prob True"),
        ("qwen3_moe", {"norm_topk_prob": False}, "norm_topk_prob False"),
        ("smollm3", {"no_rope_layers": [0, 1, 1, 1]}, "no_rope_layers"),
        ("stablelm", {"use_parallel_residual": True}, "use_parallel_residual True"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(
    tmp_path: Path, model_type: str, changes: dict[str, object], named: str
) -> None:
    build_merged(model_type, tmp_path / "m", **changes)
    with pytest.raises(TrainerError, match="does not compute") as refused:
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")
    assert named in refused.value.message
    assert not (tmp_path / "m.gguf").exists()


@pytest.mark.parametrize(
    ("model_type", "changes"),
    [
        ("arcee", {"attention_bias": True}),
        ("arcee", {"mlp_bias": True}),
        ("ernie4_5", {"use_bias": True}),
        ("granite", {"attention_bias": True, "mlp_bias": True}),
        ("helium", {"attention_bias": True, "mlp_bias": True}),
        ("llama", {"attention_bias": True, "mlp_bias": True}),
        ("nemotron", {"attention_bias": True, "mlp_bias": True}),
        ("olmo2", {"attention_bias": True}),
        ("qwen3", {"attention_bias": True}),
        ("seed_oss", {"attention_out_bias": True, "mlp_bias": True}),
        ("smollm3", {"attention_bias": True, "mlp_bias": True}),
        ("stablelm", {"use_qkv_bias": True}),
    ],
)
def test_biases_are_kept_or_refused(
    tmp_path: Path, model_type: str, changes: dict[str, object]
) -> None:
    window = WIDE_WINDOW if model_type in KNOW_NO_WINDOW else {}
    model = build_merged(model_type, tmp_path / "m", **(changes | window))
    try:
        _, prompts, run = write_and_run(tmp_path / "m")
    except TrainerError as refused:
        assert "has no place for weights of this model: blk.0." in refused.message
    else:
        assert largest_difference(model, prompts, run)[0] < TOLERANCE


@pytest.mark.parametrize("model_type", WRITTEN)
@pytest.mark.parametrize("tied", [False, True])
def test_head_is_the_embedding_only_where_the_two_are_tied(
    tmp_path: Path, model_type: str, *, tied: bool
) -> None:
    window = WIDE_WINDOW if model_type in KNOW_NO_WINDOW else {}
    model = build_merged(model_type, tmp_path / "m", tie_word_embeddings=tied, **window)
    try:
        _, prompts, run = write_and_run(tmp_path / "m", lengths=[4])
    except TrainerError as refused:
        assert not tied
        assert "lm_head" in refused.message
    else:
        assert largest_difference(model, prompts, run)[0] < GELU_TOLERANCE
