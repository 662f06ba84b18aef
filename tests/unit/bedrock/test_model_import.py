"""A merged folder for Bedrock's import: in older words, and held against Bedrock's rules."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cloudft.backends.bedrock.model_import import convert_config, model_checks
from cloudft.catalogue import load_import_rules
from cloudft.errors import UsageError

VERSION = load_import_rules().transformers
OLD_PYTHON = os.environ.get("CLOUDFT_OLD_TRANSFORMERS")
"""Python of an environment with transformers 4.51.3 and torch, if there is one."""
COMPARES = """
import json, sys, torch, transformers
from transformers import AutoModelForCausalLM, AutoTokenizer
assert transformers.__version__ == "4.51.3"
model = AutoModelForCausalLM.from_pretrained(sys.argv[1]).eval()
tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])
text = tokenizer.apply_chat_template([{"role": "user", "content": "Where is it?"}], tokenize=False)
ids = tokenizer(text)["input_ids"]
with torch.inference_mode():
    logits = model(input_ids=torch.tensor([ids])).logits[0, -1]
print(json.dumps({"ids": ids, "logits": logits.tolist()}))
"""


@pytest.fixture
def merged(tmp_path: Path, tiny_model: Path) -> Path:
    folder: Path = shutil.copytree(tiny_model, tmp_path / "merged")
    change(folder, "config.json", rope_parameters={"rope_theta": 50.0, "rope_type": "default"})
    return folder


def change(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


def codes(folder: Path, **options: Any) -> list[str]:
    found = model_checks.check_model_folder(
        folder, **{"supervised": True, "region": "us-east-1"} | options
    )
    return [f.code for f in found]


def test_new_words_become_old_ones_once(merged: Path) -> None:
    template = (merged / "chat_template.jinja").read_text()
    length = read(merged, "tokenizer_config.json")["model_max_length"]
    change(merged, "tokenizer_config.json", extra_special_tokens=["<|x|>"])
    convert_config.convert_folder(merged, VERSION)
    first = {path.name: path.read_bytes() for path in merged.iterdir()}
    config, tokenizer = read(merged, "config.json"), read(merged, "tokenizer_config.json")
    assert config["rope_theta"] == 50.0 and config["rope_scaling"] is None
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["transformers_version"] == VERSION and "rope_parameters" not in config
    assert tokenizer["tokenizer_class"] in load_import_rules().tokenizers
    assert tokenizer["additional_special_tokens"] == ["<|x|>"]
    assert tokenizer["chat_template"] == template and tokenizer["model_max_length"] == length
    assert "chat_template.jinja" not in first
    convert_config.convert_folder(merged, VERSION)
    assert {path.name: path.read_bytes() for path in merged.iterdir()} == first
    assert codes(merged) == []


def test_a_scaled_rope_keeps_its_scaling() -> None:
    rope = {"rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0}
    made = convert_config.convert_config({"rope_parameters": rope}, VERSION)
    assert made["rope_theta"] == 5e5
    assert made["rope_scaling"] == {"rope_type": "llama3", "factor": 8.0}
    with pytest.raises(ValueError, match="between layers"):
        convert_config.convert_config({"rope_parameters": {"full_attention": rope}}, VERSION)


@pytest.mark.parametrize(
    ("name", "values", "code"),
    [
        ("config.json", {"architectures": ["GemmaForCausalLM"]}, "ImportArchitecture"),
        ("config.json", {"architectures": None}, "ImportArchitecture"),
        ("config.json", {"quantization_config": {"bits": 4}}, "ImportQuantised"),
        ("config.json", {"max_position_embeddings": 131072}, "ImportContext"),
        ("config.json", {"rope_scaling": {"rope_type": "llama3", "factor": 32.0}}, "ImportRope"),
        ("tokenizer_config.json", {"tokenizer_class": "GemmaTokenizer"}, "ImportTokenizer"),
        ("tokenizer_config.json", {"chat_template": None}, "ImportNoTemplate"),
    ],
)
def test_each_fault_is_named(merged: Path, name: str, values: dict[str, Any], code: str) -> None:
    convert_config.convert_folder(merged, VERSION)
    change(merged, name, **values)
    assert codes(merged) == [code]


def test_missing_files_and_other_formats_are_named(merged: Path) -> None:
    convert_config.convert_folder(merged, VERSION)
    (merged / "tokenizer.json").unlink()
    header = json.dumps({"w": {"dtype": "I8", "shape": [1], "data_offsets": [0, 1]}}).encode()
    (merged / "model.safetensors").write_bytes(struct.pack("<Q", len(header)) + header + b"\0")
    assert codes(merged) == ["ImportFileMissing", "ImportDtype"]
    (merged / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(UsageError, match="no complete safetensors file"):
        codes(merged)
    (merged / "model.safetensors").unlink()
    (merged / "config.json").unlink()
    assert codes(merged) == ["ImportFileMissing"] * 2


def test_gpt_oss_is_imported_in_one_region_and_with_its_three_ends(merged: Path) -> None:
    convert_config.convert_folder(merged, VERSION)
    change(merged, "config.json", architectures=["GptOssForCausalLM"])
    assert codes(merged, region="us-west-2") == ["ImportRegion", "ImportEnds"]
    change(merged, "generation_config.json", eos_token_id=[200002, 199999, 200012])
    assert codes(merged) == []


@pytest.mark.skipif(OLD_PYTHON is None, reason="CLOUDFT_OLD_TRANSFORMERS names no Python")
def test_the_version_that_bedrock_names_computes_the_same(merged: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    convert_config.convert_folder(merged, VERSION)
    done = subprocess.run(
        [str(OLD_PYTHON), "-c", COMPARES, str(merged)], capture_output=True, check=True
    )
    found = json.loads(done.stdout)
    model = AutoModelForCausalLM.from_pretrained(merged).eval()
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([found["ids"]])).logits[0, -1]
    assert torch.allclose(logits, torch.tensor(found["logits"]), atol=1e-5)
