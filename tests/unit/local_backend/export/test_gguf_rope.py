"""Positions in a GGUF file are those of transformers: scaling, partial rotation, layer types."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_models import FULL, SLIDING, TOLERANCE, build_merged, largest_difference, write_and_run

from local_backend.errors import TrainerError
from local_backend.export.gguf import write_gguf

LLAMA3 = {"low_freq_factor": 1.0, "high_freq_factor": 4.0}
SCALINGS: dict[str, dict[str, Any]] = {
    "linear": {"rope_type": "linear", "factor": 4.0},
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32},
    "yarn-attention": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "attention_factor": 0.8,
    },
    "yarn-mscale": {
        "rope_type": "yarn",
        "factor": 4.0,
        "original_max_position_embeddings": 32,
        "mscale": 0.7,
        "mscale_all_dim": 1.0,
    },
    "yarn-betas": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
        "beta_fast": 16.0,
        "beta_slow": 2.0,
    },
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "original_max_position_embeddings": 64,
    }
    | LLAMA3,
}
ALL = sorted(SCALINGS)
PLAIN_ONLY = ["linear", "yarn", "yarn-attention", "yarn-mscale"]
CASES = [
    *(("llama", name) for name in ALL),
    *(("granite", name) for name in ALL),
    *(("qwen3", name) for name in PLAIN_ONLY),
    *(("glm4", name) for name in PLAIN_ONLY),
    *(("gpt_oss", name) for name in PLAIN_ONLY),
]


def rope(name: str, **more: Any) -> dict[str, Any]:
    """Return rope_parameters of a scaling."""
    return {"rope_parameters": {"rope_theta": 10000.0} | SCALINGS[name] | more}


@pytest.mark.parametrize(("model_type", "name"), CASES)
def test_scaled_positions_are_those_of_transformers(
    tmp_path: Path, model_type: str, name: str
) -> None:
    window = {} if model_type == "gpt_oss" else {"sliding_window": None, "layer_types": [FULL] * 2}
    sizes = {} if model_type == "granite" else {"head_dim": 16}
    model = build_merged(model_type, tmp_path / "m", **(rope(name) | window | sizes))
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[30])
    assert largest_difference(model, prompts, run)[0] < TOLERANCE


@pytest.mark.parametrize("model_type", ["glm4", "nemotron", "phi3", "stablelm"])
def test_part_of_a_head_without_positions(tmp_path: Path, model_type: str) -> None:
    changes = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    changes["rope_parameters"]["partial_rotary_factor"] = 0.5
    window = {"sliding_window": None} if model_type == "phi3" else {}
    model = build_merged(model_type, tmp_path / "m", **(changes | window))
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[30])
    assert largest_difference(model, prompts, run)[0] < TOLERANCE


@pytest.mark.parametrize(
    ("model_type", "changes", "named"),
    [
        ("llama", rope("linear", partial_rotary_factor=0.5), "partial_rotary_factor 0.5"),
        ("llama", rope("linear", rope_type="dynamic"), "type 'dynamic'"),
        ("qwen3", rope("llama3"), "type 'llama3'"),
        ("qwen3", rope("yarn-betas") | {"head_dim": 16}, "these settings of rope scaling 'yarn'"),
        ("gpt_oss", rope("yarn-betas") | {"head_dim": 16}, "these settings of rope scaling 'yarn'"),
        (
            *("gpt_oss", rope("yarn", truncate=False) | {"head_dim": 64}),
            "a range of yarn that is not rounded (truncate: false)",
        ),
    ],
)
def test_positions_that_llama_cpp_does_not_compute_are_refused(
    tmp_path: Path, model_type: str, changes: dict[str, Any], named: str
) -> None:
    build_merged(model_type, tmp_path / "m", **changes)
    with pytest.raises(TrainerError, match="does not apply") as refused:
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")
    assert named in refused.value.message


def test_longrope_is_right_up_to_the_original_length(tmp_path: Path) -> None:
    changes = {
        "sliding_window": None,
        "max_position_embeddings": 4096,
        "original_max_position_embeddings": 1024,
        "rope_parameters": {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0, 1.5, 2.0, 3.0],
            "long_factor": [2.0, 3.0, 5.0, 9.0],
            "original_max_position_embeddings": 1024,
        },
    }
    model = build_merged("phi3", tmp_path / "m", **changes)
    summary, prompts, run = write_and_run(tmp_path / "m", lengths=[30])
    assert largest_difference(model, prompts, run)[0] < TOLERANCE
    assert summary["contextLength"] == 1024
    assert summary["notes"][0].startswith("the file says 1024 tokens of context, not 4096:")


def test_layers_with_a_window_have_positions_of_their_own(tmp_path: Path) -> None:
    plain = {"rope_type": "default", "rope_theta": 10000.0}
    model = build_merged(
        "olmo3",
        tmp_path / "m",
        num_hidden_layers=2,
        layer_types=[SLIDING, FULL],
        rope_parameters={
            "full_attention": {"rope_theta": 10000.0} | SCALINGS["yarn"],
            "sliding_attention": plain,
        },
    )
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[30])
    assert largest_difference(model, prompts, run)[0] < TOLERANCE
