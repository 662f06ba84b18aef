"""`--quantize q4` and `q8` for mlx. That mlx-lm makes the same of a model: tests/runtimes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import torch
from safetensors.torch import load_file, save_file
from trainer_run import RunTrainer, TrainerRun

from local_backend.errors import TrainerError
from local_backend.export.export_model import export_model
from local_backend.export.features import ModelFiles
from local_backend.export.mlx_folder import GROUP, check_mlx, quantize, quantize_folder
from local_backend.export.options import ExportOptions
from local_backend.export.verify import read_tolerance
from local_backend.job_dir import JobDir

QWEN3_MOE = {"model_type": "qwen3_moe", "hidden_size": 128, "num_experts": 8}


def read_back(packed: Any, scales: Any, biases: Any, bits: int) -> Any:
    """Return the values that a quantized matrix stands for, in float32."""
    shifts = torch.arange(32 // bits) * bits
    words = packed.to(torch.int64)[..., None] >> shifts
    groups = (words & ((1 << bits) - 1)).reshape(len(packed), -1, GROUP).float()
    return (groups * scales.float()[..., None] + biases.float()[..., None]).flatten(1)


@pytest.mark.parametrize("bits", [4, 8])
def test_each_weight_is_within_half_a_step_and_zero_and_the_far_end_are_met(bits: int) -> None:
    torch.manual_seed(0)
    matrix = torch.randn(64, 3 * GROUP)
    matrix[:, ::7] = 0
    matrix[1], matrix[2], matrix[3] = 0, matrix[3].abs(), -matrix[4].abs()
    packed, scales, biases = quantize(matrix, bits)
    assert packed.dtype == torch.uint32 and packed.shape == (64, 3 * GROUP * bits // 32)
    assert scales.shape == biases.shape == (64, 3)
    values = read_back(packed, scales, biases, bits)
    steps = scales.abs().repeat_interleave(GROUP, dim=1)
    # The near end may be cut, by what the step was changed so that zero is met.
    assert ((values - matrix).abs() <= steps * 1.01).all()
    assert (values - matrix).abs().mean() < 0.3 * steps.mean()
    assert values[matrix == 0].abs().max() < 1e-6
    groups, made = matrix.reshape(-1, GROUP), values.reshape(-1, GROUP)
    far = groups.abs().argmax(dim=1, keepdim=True)
    assert torch.equal(made.gather(1, far), groups.gather(1, far))


def test_a_folder_keeps_norms_routers_and_short_rows_and_its_index_names_what_is_there(
    tmp_path: Path,
) -> None:
    merged, out = tmp_path / "merged", tmp_path / "out"
    merged.mkdir()
    out.mkdir()
    files: dict[str, dict[str, Any]] = {
        "model-00001-of-00002.safetensors": {
            "model.embed_tokens.weight": torch.randn(10, GROUP),
            "model.layers.0.mlp.gate.weight": torch.randn(4, GROUP),
            "model.norm.weight": torch.ones(GROUP),
        },
        "model-00002-of-00002.safetensors": {
            "lm_head.weight": torch.randn(10, GROUP),
            "model.layers.0.mlp.down_proj.weight": torch.randn(GROUP, 32),
            "model.layers.0.mlp.up_proj.bias": torch.randn(32),
        },
    }
    for name, tensors in files.items():
        save_file(tensors, merged / name)
    places = {tensor: name for name, tensors in files.items() for tensor in tensors}
    index = merged / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
    (merged / "config.json").write_text('{"model_type": "llama"}')
    (merged / "tokenizer.json").write_text("{}")
    assert quantize_folder(merged, out, 4) == {"quantized": 2, "kept": 2}
    found: dict[str, Any] = {}
    for name in files:
        for tensor, value in load_file(out / name).items():
            found[tensor] = (name, value)
    for name in ("model.embed_tokens", "lm_head"):
        assert {f"{name}.{part}" for part in ("weight", "scales", "biases")} <= found.keys()
    for name, tensors in files.items():
        for tensor, value in tensors.items():
            if tensor not in ("model.embed_tokens.weight", "lm_head.weight"):
                assert torch.equal(found[tensor][1], value) and found[tensor][0] == name
    written = json.loads((out / index.name).read_text())
    assert written["weight_map"] == {tensor: name for tensor, (name, _) in found.items()}
    assert written["metadata"]["total_size"] == sum(value.nbytes for _, value in found.values())
    config = json.loads((out / "config.json").read_text())
    assert config["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine"}
    assert config["model_type"] == "llama" and (out / "tokenizer.json").is_file()


def save_wide_model(folder: Path) -> Path:
    """Save a random Llama whose rows are two groups long."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = tiny.build_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=2 * GROUP,
        intermediate_size=GROUP,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=tiny.CONTEXT,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_a_job_is_exported_quantized_after_its_proof(train: RunTrainer, tmp_path: Path) -> None:
    job = JobDir(train(8, model=save_wide_model(tmp_path / "wide"), epochCount=1).path)
    out = tmp_path / "out"
    options = ExportOptions("mlx", "mlx", quantization="q8")
    proof: dict[str, Any] = {**export_model(job, out, options)}
    assert proof["quantization"] == "q8" and proof["format"] == "mlx"
    # Seven of the layer, the embedding and the head.
    assert proof["quantized"] == {"quantized": 9, "kept": 0} and proof["dtype"] == "float32"
    assert read_tolerance(out) is None
    tensors = load_file(out / "model.safetensors")
    kinds = {str(tensor.dtype).removeprefix("torch.") for tensor in tensors.values()}
    assert kinds == {"uint32", "float32"}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]
    assert proof["files"].keys() == {path.name for path in out.iterdir()} - {"export.json"}
    plain = tmp_path / "plain"
    assert "quantization" not in export_model(job, plain, ExportOptions("mlx"))
    assert "quantization" not in json.loads((plain / "config.json").read_text())


def test_a_model_whose_rows_are_no_groups_is_refused_before_it_is_loaded(
    tuned: TrainerRun, tmp_path: Path
) -> None:
    options = ExportOptions("mlx", "mlx", quantization="q4")
    with pytest.raises(TrainerError, match="the model's rows have 32"):
        export_model(JobDir(tuned.path), tmp_path / "out", options)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"model_type": "llama", "hidden_size": 96}, "the model's rows have 96"),
        (QWEN3_MOE, "experts of the family qwen3_moe"),
    ],
)
def test_what_can_not_be_quantized_is_refused_with_a_way_out(
    config: dict[str, Any], named: str
) -> None:
    with pytest.raises(TrainerError, match=named) as caught:
        check_mlx(ModelFiles(config), "q4")
    assert "--dtype float16" in str(caught.value.fix)
    check_mlx(ModelFiles(config), "f16")
