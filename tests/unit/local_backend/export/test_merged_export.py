"""One merged model, and the proof that it is the tuned one."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import preloaded
import pytest
import tiny
import torch
from trainer_run import RunTrainer, TrainerRun

from local_backend.errors import TrainerError
from local_backend.export import export_model as export_module
from local_backend.export.export_model import PROOF, export_model
from local_backend.export.merged import convert_weights
from local_backend.export.options import ExportOptions
from local_backend.job_dir import JobDir
from local_backend.models import lora


def answer_prompts(folder: Path) -> list[str]:
    """Return the answers of a model folder to the eight prompts that `tuned` was trained on."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    texts = []
    for number in range(len(tiny.CITIES)):
        message = {"role": "user", "content": f"Where is parcel {number}?"}
        ids = tokenizer.apply_chat_template(
            [message], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**ids, max_new_tokens=12, do_sample=False, pad_token_id=0)
        texts.append(tokenizer.decode(output[0][ids["input_ids"].shape[1] :]))
    return texts


def test_the_merged_model_answers_as_the_tuned_one_and_loads_without_us(
    tuned: TrainerRun, tmp_path: Path
) -> None:
    out = tmp_path / "merged"
    command = [
        preloaded.interpreter_path(),
        "-m",
        "local_backend.export",
        str(tuned.path),
        str(out),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    proof = json.loads(done.stdout)
    assert proof == json.loads((out / PROOF).read_text())
    assert proof["equalGreedyAnswers"] == proof["records"] == 8
    assert proof["maxLogitDifference"] <= proof["tolerance"] == 1e-3
    assert proof["heldOut"] == "train"
    assert proof["differsInOlderReaders"] == []
    config = json.loads((out / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"]
    assert not (out / "adapter_config.json").exists()
    assert answer_prompts(out) == [f"In {city}.{tiny.END}" for city in tiny.CITIES]


def test_what_is_printed_on_the_way_is_no_part_of_the_proof() -> None:
    """The first use of a GGUF file converts it and prints so; progress bars are off."""
    code = (
        "import sys; import local_backend.export.export_model as e; from tqdm.auto import tqdm\n"
        "import local_backend.export.__main__ as m\n"
        "e.export_model = lambda *_: (print('converting', *tqdm([1])), {'records': 8})[1]\n"
        "sys.argv[1:] = ['job', 'out']; sys.exit(m.main())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert json.loads(done.stdout) == {"records": 8}, done.stdout
    assert done.stderr.splitlines() == ["converting 1"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_shorter_format_is_written_and_proven_as_well(
    tuned: TrainerRun, tmp_path: Path, dtype: str
) -> None:
    out = tmp_path / dtype
    proof = export_model(JobDir(tuned.path), out, ExportOptions(dtype=dtype))
    assert proof["equalGreedyAnswers"] == 8
    assert json.loads((out / "config.json").read_text())["dtype"] == dtype


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_model_keeps_in_float32_is_not_rounded(tmp_path: Path, dtype: torch.dtype) -> None:
    """A router's correction bias decides which experts answer."""
    from safetensors.torch import load_file
    from transformers import DeepseekV3Config, DeepseekV3ForCausalLM

    config = DeepseekV3Config(
        vocab_size=64,
        hidden_size=16,
        intermediate_size=16,
        moe_intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        n_routed_experts=4,
        n_group=2,
        topk_group=1,
        num_experts_per_tok=2,
        first_k_dense_replace=1,
        q_lora_rank=8,
        kv_lora_rank=8,
        qk_nope_head_dim=4,
        qk_rope_head_dim=4,
        v_head_dim=4,
    )
    model = DeepseekV3ForCausalLM(config)
    gate = model.get_submodule("model.layers.1.mlp.gate")
    bias = torch.tensor([0.10001, 0.1, 0.10002, 0.09999])
    gate.get_buffer("e_score_correction_bias").copy_(bias)
    convert_weights(model, dtype)
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    kept = {name for name, tensor in tensors.items() if tensor.dtype == torch.float32}
    assert kept == {"model.layers.1.mlp.gate.e_score_correction_bias"}
    assert torch.equal(tensors[kept.pop()], bias)
    assert {t.dtype for t in tensors.values()} == {torch.float32, dtype}


def test_all_weights_are_exported_as_they_are(train: RunTrainer, tmp_path: Path) -> None:
    run = train(8, method="full", epochCount=2)
    proof = export_model(JobDir(run.path), tmp_path / "out", ExportOptions())
    assert proof["maxLogitDifference"] == 0


def test_an_adapter_on_a_tied_output_layer_is_trained_and_exported(
    train: RunTrainer, tiny_model: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForCausalLM

    model = shutil.copytree(tiny_model, tmp_path / "tied")
    base = AutoModelForCausalLM.from_pretrained(model, tie_word_embeddings=True)
    base.save_pretrained(model)
    lora_settings = {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["v_proj", "lm_head"]}
    run = train(8, model=model, epochCount=2, lora=lora_settings)
    assert run.status == "Completed", run.log
    assert "no adapter on the output layer" in run.log
    proof = export_model(JobDir(run.path), tmp_path / "out", ExportOptions())
    assert proof["equalGreedyAnswers"] == 8 and proof["differsInOlderReaders"] == []
    assert (
        json.loads((tmp_path / "out" / "config.json").read_text())["tie_word_embeddings"] is False
    )


def test_sampling_settings_and_a_sentencepiece_model_of_the_base_are_kept(
    train: RunTrainer, tiny_model: Path, tmp_path: Path
) -> None:
    """transformers#29988: a temperature without do_sample could not be saved. llama.cpp#19152: a
    merged Gemma without tokenizer.model can't be converted.
    """
    model = shutil.copytree(tiny_model, tmp_path / "base")
    path = model / "generation_config.json"
    sampling = {"temperature": 0.6, "top_p": 0.9, "do_sample": False}
    eos = json.loads((model / "config.json").read_text())["eos_token_id"]
    path.write_text(json.dumps(sampling | {"eos_token_id": [0, eos]}))
    (model / "tokenizer.model").write_bytes(b"its pieces and scores")
    run = train(8, model=model, epochCount=1)
    assert run.status == "Completed", run.log
    export_model(JobDir(run.path), tmp_path / "out", ExportOptions())
    exported = json.loads((tmp_path / "out" / path.name).read_text())
    assert sampling.items() <= exported.items()
    assert exported["eos_token_id"] == [eos, 0]  # the tokenizer's first: some readers take one
    assert (tmp_path / "out" / "tokenizer.model").read_bytes() == b"its pieces and scores"
    words = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert words["added_tokens_decoder"]["1"]["content"] == "<|im_start|>"


def test_an_existing_folder_is_refused_and_left_alone(tuned: TrainerRun, tmp_path: Path) -> None:
    out = tmp_path / "mine"
    out.mkdir()
    (out / "precious").write_text("x")
    with pytest.raises(TrainerError, match="exists already"):
        export_model(JobDir(tuned.path), out, ExportOptions())
    assert [path.name for path in out.iterdir()] == ["precious"]
    for below in ("precious/out", "precious/deeper/out"):
        with pytest.raises(TrainerError, match="one of the folders above it is a file"):
            export_model(JobDir(tuned.path), out / below, ExportOptions())
    assert (out / "precious").read_text() == "x"


def test_a_place_that_takes_no_files_is_an_error_before_the_model_is_loaded(
    tuned: TrainerRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        export_module, "load_tuned_model", lambda job_dir: pytest.fail("it was loaded")
    )
    with pytest.raises(TrainerError, match="can't be made") as caught:  # root may not, either
        export_model(JobDir(tuned.path), Path("/proc/out"), ExportOptions())
    assert "write into" in caught.value.fix


def test_a_merge_that_went_wrong_fails_the_proof_and_leaves_nothing(
    tuned: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forgets_to_merge(model: Any) -> None:
        for name, layer in list(lora.lora_layers(model)):
            lora.replace_module(model, name, layer.base_layer)

    monkeypatch.setattr(lora, "merge_adapters", forgets_to_merge)
    folder = tmp_path / "out"
    with pytest.raises(TrainerError, match="The merged model is not the tuned one"):
        export_model(JobDir(tuned.path), folder / "merged", ExportOptions())
    assert list(folder.iterdir()) == []


def test_a_merged_weight_that_is_off_by_a_little_fails_the_proof(
    tuned: TrainerRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge = lora.merge_adapters

    def merges_badly(model: Any) -> None:
        merge(model)
        with torch.no_grad():
            model.model.layers[1].mlp.down_proj.weight.mul_(1.02)

    monkeypatch.setattr(lora, "merge_adapters", merges_badly)
    with pytest.raises(TrainerError, match="logits differ by up to"):
        export_model(JobDir(tuned.path), tmp_path / "merged", ExportOptions())
    assert not (tmp_path / "merged").exists()


def test_a_job_without_a_model_is_refused(tmp_path: Path, tiny_model: Path) -> None:
    folder = tiny.write_job_dir(tmp_path / "job", tiny_model, {"train": tiny.pairs(4)})
    with pytest.raises(TrainerError, match="has no tuned model yet"):
        export_model(JobDir(folder), tmp_path / "out", ExportOptions())
