"""Exports in each format: what is written, and that it is the tuned model."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_run import RunTrainer, TrainerRun

from local_backend.errors import TrainerError
from local_backend.export.export_model import PROOF, export_model
from local_backend.export.options import ExportOptions
from local_backend.job_dir import JobDir


def read(path: Path) -> Any:
    """Return the content of a JSON file."""
    return json.loads(path.read_text(encoding="utf-8"))


def test_an_adapter_is_a_folder_of_peft_that_makes_the_tuned_model_of_its_base(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path
) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    out, merged = tmp_path / "adapter", tmp_path / "merged"
    proof = export_model(
        JobDir(tuned.path), out, ExportOptions(format="adapter", base=str(tiny_model))
    )
    assert proof["maxLogitDifference"] == 0 and proof["equalGreedyAnswers"] == 8
    assert read(out / "adapter_config.json")["base_model_name_or_path"] == str(tiny_model)
    export_model(JobDir(tuned.path), merged, ExportOptions())
    adapted = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_model), out)
    ids = torch.tensor([[5, 6, 7, 50, 60]])
    with torch.inference_mode():
        expected = AutoModelForCausalLM.from_pretrained(merged).eval()(input_ids=ids).logits
        assert (adapted.eval()(input_ids=ids).logits - expected).abs().max() < 1e-3
    ours, theirs = AutoTokenizer.from_pretrained(out), AutoTokenizer.from_pretrained(merged)
    assert ours.chat_template == theirs.chat_template
    assert str(tiny_model) in (out / "README.md").read_text()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_an_adapter_in_a_shorter_format_is_proven_as_well(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path, dtype: str
) -> None:
    from safetensors.torch import load_file

    out = tmp_path / dtype
    options = ExportOptions(format="adapter", dtype=dtype, base=str(tiny_model))
    proof = export_model(JobDir(tuned.path), out, options)
    assert proof["equalGreedyAnswers"] == 8
    tensors = load_file(out / "adapter_model.safetensors")
    assert {str(tensor.dtype) for tensor in tensors.values()} == {f"torch.{dtype}"}


def test_an_adapter_names_no_folder_of_this_machine_unless_it_is_given(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path
) -> None:
    with pytest.raises(TrainerError, match="means nothing on another machine") as caught:
        export_model(JobDir(tuned.path), tmp_path / "out", ExportOptions(format="adapter"))
    assert f"--base {tiny_model}" in str(caught.value.fix)
    out = tmp_path / "hub"
    export_model(JobDir(tuned.path), out, ExportOptions(format="adapter", base="org/model"))
    assert read(out / "adapter_config.json")["base_model_name_or_path"] == "org/model"
    assert 'base_model: "org/model"' in (out / "README.md").read_text()


def test_an_adapter_is_proven_on_the_named_base(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path
) -> None:
    """The same model quantized otherwise is another model under the adapter."""
    from transformers import AutoModelForCausalLM

    other = shutil.copytree(tiny_model, tmp_path / "other")
    model = AutoModelForCausalLM.from_pretrained(other)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.05)
    model.save_pretrained(other)
    with pytest.raises(TrainerError, match="not the tuned one"):
        export_model(
            JobDir(tuned.path), tmp_path / "out", ExportOptions(format="adapter", base=str(other))
        )
    assert not (tmp_path / "out").exists()


def test_a_job_that_trained_all_weights_has_no_adapter(train: RunTrainer, tmp_path: Path) -> None:
    run = train(8, method="full", epochCount=1)
    with pytest.raises(TrainerError, match="there is no adapter") as caught:
        export_model(JobDir(run.path), tmp_path / "out", ExportOptions(format="adapter"))
    assert caught.value.fix == "use --format merged."


def test_the_proof_names_what_was_exported_and_what_the_folder_holds(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    proof = export_model(JobDir(tuned.path), out, ExportOptions(runtime="transformers"))
    assert read(out / PROOF) == proof
    written = {path.name for path in out.iterdir()}
    assert proof["files"].keys() == written - {PROOF}
    config = hashlib.sha256((out / "config.json").read_bytes()).hexdigest()
    assert proof["files"]["config.json"] == config
    assert proof["madeFrom"]["model"] == "tiny"
    again = export_model(JobDir(tuned.path), tmp_path / "again", ExportOptions())
    assert again["madeFrom"] == proof["madeFrom"]
    assert {"torch", "transformers"} <= proof["versions"].keys()


@pytest.mark.parametrize(("sampling", "greedy"), [({}, True), ({"do_sample": True}, False)])
def test_vllm_reads_that_the_model_is_greedy(
    train: RunTrainer, tiny_model: Path, tmp_path: Path, sampling: dict[str, Any], greedy: bool
) -> None:
    """It takes the temperature of generation_config.json, and not do_sample."""
    model = shutil.copytree(tiny_model, tmp_path / "base")
    path = model / "generation_config.json"
    path.write_text(json.dumps(read(path) | {"temperature": 0.6} | sampling))
    run = train(8, model=model, epochCount=1)
    export_model(JobDir(run.path), tmp_path / "vllm", ExportOptions(runtime="vllm"))
    assert read(tmp_path / "vllm" / path.name)["temperature"] == (0.0 if greedy else 0.6)
    export_model(JobDir(run.path), tmp_path / "any", ExportOptions())
    assert read(tmp_path / "any" / path.name)["temperature"] == 0.6


def test_a_shorter_context_is_written_where_readers_look(tuned: TrainerRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export_model(JobDir(tuned.path), out, ExportOptions(context=64))
    assert read(out / "config.json")["max_position_embeddings"] == 64
    assert read(out / "tokenizer_config.json")["model_max_length"] == 64
    with pytest.raises(TrainerError, match="was made for"):
        export_model(JobDir(tuned.path), tmp_path / "long", ExportOptions(context=10**6))


def test_a_gguf_file_is_made_of_the_proven_model_and_is_alone_in_its_folder(
    tuned: TrainerRun, tmp_path: Path
) -> None:
    from gguf import GGUFReader

    out = tmp_path / "out"
    options = ExportOptions("gguf", "llama.cpp", quantization="q8_0")
    proof = export_model(JobDir(tuned.path), out, options)
    assert sorted(path.name for path in out.iterdir()) == [PROOF, "model.gguf"]
    written = read(out / PROOF)
    assert written["quantization"] == "q8_0" and written["gguf"]["architecture"] == "llama"
    assert written["equalGreedyAnswers"] == 8 and written["dtype"] == "float32"
    assert proof["run"] == "llama-server -m DIR/model.gguf"
    fields = GGUFReader(out / "model.gguf").fields
    assert fields["general.name"].contents() == "tiny-tuned"
    assert fields["tokenizer.chat_template"].contents()


def test_ollama_gets_a_modelfile_beside_the_gguf_file(tuned: TrainerRun, tmp_path: Path) -> None:
    out = tmp_path / "out"
    proof = export_model(JobDir(tuned.path), out, ExportOptions("gguf", "ollama"))
    assert sorted(path.name for path in out.iterdir()) == ["Modelfile", PROOF, "model.gguf"]
    assert "FROM ./model.gguf" in (out / "Modelfile").read_text()
    assert proof["run"] == "ollama create tuned -f DIR/Modelfile"
    assert proof["files"].keys() == {"Modelfile", "model.gguf"}


def test_a_model_that_can_not_be_a_gguf_file_is_refused_before_it_is_loaded(
    tuned: TrainerRun, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(job_dir: JobDir) -> None:
        raise AssertionError("loaded")

    monkeypatch.setattr("local_backend.export.export_model.load_tuned_model", refused)
    path = tiny_model / "config.json"
    config = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(config) | {"hidden_act": "relu"}))
        with pytest.raises(TrainerError, match="the activation 'relu'"):
            export_model(JobDir(tuned.path), tmp_path / "out", ExportOptions("gguf", "ollama"))
    finally:
        path.write_text(config)
    assert not (tmp_path / "out").exists()


def test_a_quantization_that_can_not_be_written_is_refused_before_the_model_is_loaded(
    tuned: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(_: Any) -> None:
        pytest.fail("the model is loaded")

    monkeypatch.setattr("local_backend.export.export_model.load_tuned_model", load)
    options = ExportOptions("gguf", quantization="q4_k")
    with pytest.raises(TrainerError, match="'q4_k' is no quantization") as refused:
        export_model(JobDir(tuned.path), tmp_path / "out", options)
    assert "q4_k_m" in str(refused.value.fix)
