"""A saved model in the names of transformers 4 and 5: one model and one tokenizer for both."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import tiny

from local_backend.models.portable_config import (
    CONFIG,
    GENERATION_CONFIG,
    TOKENIZER_CONFIG,
    older_reader_differences,
    write_portable_config,
)

OLD_PYTHONS = [p for p in os.environ.get("CLOUDFT_OLD_TRANSFORMERS", "").split(os.pathsep) if p]
"""Pythons of environments with torch and an older transformers each, if there are any."""
TEXTS = [
    "Where is it?",
    " a  b\n\nc 12345 don't",
    "<|im_start|>user\nHi<|im_end|>\n",
    "",
    "Äpfel 東京",
]
ENDS = [2, 0]
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "bos_token_id": None,
    "eos_token_id": 2,
    "pad_token_id": None,
}
LLAMA3 = {"factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0}
ORIGINAL = {"original_max_position_embeddings": 64}
LONG = {"short_factor": [1.0, 1.1, 1.2, 1.3], "long_factor": [2.0, 2.1, 2.2, 2.3]}


def rope(theta: float, kind: str = "default", **values: Any) -> dict[str, Any]:
    return {"rope_type": kind, "rope_theta": theta, **values}


GEMMA3_ROPE = {
    "full_attention": rope(5e5, "linear", factor=8.0),
    "sliding_attention": rope(5e3),
}
WINDOW = {"sliding_window": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"rope_parameters": rope(5e5, "llama3", **LLAMA3, **ORIGINAL)}),
    "llama_yarn": ("llama", {"rope_parameters": rope(5e4, "yarn", factor=4.0, **ORIGINAL)}),
    "qwen2": ("qwen2", {"rope_parameters": rope(1e6), "tie_word_embeddings": True}),
    "qwen3": ("qwen3", {"rope_parameters": rope(1e6)}),
    "qwen3_moe": (
        "qwen3_moe",
        {
            "rope_parameters": rope(1e6),
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 32,
        },
    ),
    "mistral": ("mistral", {"rope_parameters": rope(1e6), **WINDOW}),
    "gemma2": ("gemma2", {"rope_parameters": rope(5e4), **WINDOW}),
    "gemma3": ("gemma3_text", {"rope_parameters": GEMMA3_ROPE, **WINDOW, "num_hidden_layers": 7}),
    "gemma3_pairs": (
        "gemma3_text",
        {**WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2},
    ),
    "phi3": ("phi3", {"rope_parameters": rope(5e4, partial_rotary_factor=0.5)}),
    "phi3_long": (
        "phi3",
        {
            "rope_parameters": rope(5e4, "longrope", **ORIGINAL, **LONG),
            "head_dim": 8,
            **ORIGINAL,
        },
    ),
    "smollm3": ("smollm3", {"rope_parameters": rope(5e6), "no_rope_layer_interval": 2}),
    "granite": ("granite", {"rope_parameters": rope(5e4), "logits_scaling": 2.0}),
    "olmo2": ("olmo2", {"rope_parameters": rope(5e5)}),
    "cohere2": ("cohere2", {"rope_parameters": rope(5e4), **WINDOW}),
    "gpt_neox": ("gpt_neox", {"rope_parameters": rope(5e4, partial_rotary_factor=0.5)}),
}
SINCE = {"smollm3": (4, 53)}
"""The first version that knows a family, where that is after 4.51."""
COMPARES = """
import json, sys, torch, transformers
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
version = [int(part) for part in transformers.__version__.split(".")[:2]]
assert version[0] == 4
for folder in map(Path, sys.argv[1:]):
    expected = json.loads((folder / "expected.json").read_text())
    if version < expected["since"]:
        continue
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert [tokenizer(text)["input_ids"] for text in expected["texts"]] == expected["ids"], folder
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False)
    assert chat == expected["chat"], folder
    # 4.51 keeps windows with this implementation alone.
    model = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    assert model.config.eos_token_id == model.generation_config.eos_token_id == expected["ends"]
    assert model.dtype == torch.float32
    with torch.inference_mode():
        logits = model(input_ids=torch.arange(40)[None]).logits[0]
    difference = (logits - torch.tensor(expected["logits"])).abs().max().item()
    assert difference < 1e-4, (folder, difference)
    print(folder.name)
"""


def save_model(folder: Path, family: str) -> Any:
    """Save a random model of a family with the tests' tokenizer; return the tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    tokenizer = tiny.build_tokenizer()
    tokenizer.add_special_tokens({"extra_special_tokens": ["<|im_start|>"]})
    model_type, values = FAMILIES[family]
    torch.manual_seed(0)
    config = AutoConfig.for_model(model_type, vocab_size=len(tokenizer), **SMALL | values)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            weight.normal_(0, 0.3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # As a job has it: beside a Qwen 2, transformers 5 reads every tokenizer by Qwen 2's rules.
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return tokenizer


@pytest.mark.parametrize("family", FAMILIES)
def test_the_older_names_alone_say_the_same(tmp_path: Path, family: str) -> None:
    from transformers import AutoConfig, AutoTokenizer

    tokenizer = save_model(tmp_path, family)
    before = AutoConfig.from_pretrained(tmp_path).to_dict()
    assert "rope_parameters" in older_reader_differences(tmp_path, tokenizer, TEXTS) or (
        family == "gemma3_pairs"
    )
    write_portable_config(tmp_path, tokenizer, ENDS)
    assert older_reader_differences(tmp_path, tokenizer, TEXTS) == []
    written = {p.name: p.read_bytes() for p in tmp_path.glob("*.json")}
    after = AutoConfig.from_pretrained(tmp_path).to_dict()
    after["rope_parameters"].pop("type", None)  # the older name of rope_type, beside it
    changed = {name for name in {*before, *after} if before.get(name) != after.get(name)}
    older = {"rope_theta", "partial_rotary_factor", "sliding_window_pattern"}
    assert changed <= older | {"eos_token_id"}
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert sorted(again.all_special_tokens) == sorted(tokenizer.all_special_tokens)
    assert again.chat_template == tokenizer.chat_template
    write_portable_config(tmp_path, again, ENDS)
    assert {p.name: p.read_bytes() for p in tmp_path.glob("*.json")} == written


def test_every_name_is_written_and_the_template_once(tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path, "llama")
    write_portable_config(tmp_path, tokenizer, ENDS)
    config, generation, words = (
        json.loads((tmp_path / name).read_text())
        for name in (CONFIG, GENERATION_CONFIG, TOKENIZER_CONFIG)
    )
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 5e5
    assert config["rope_scaling"] == {
        k: v for k, v in config["rope_parameters"].items() if k != "rope_theta"
    }
    assert config["torch_dtype"] == config["dtype"] == "float32"
    assert config["eos_token_id"] == generation["eos_token_id"] == ENDS
    assert words["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert words["additional_special_tokens"] == ["<|im_start|>"]
    assert "extra_special_tokens" not in words
    assert words["chat_template"] == tiny.CHATML
    assert not list(tmp_path.glob("*.jinja"))


@pytest.mark.parametrize("family", ["gemma4", "gemma3n", "laguna", "mellum", "gpt_oss", "olmo3"])
def test_no_older_name_changes_what_this_version_reads(tmp_path: Path, family: str) -> None:
    """Where an older name would, it is left out, and the proof says what older readers miss."""
    from transformers import AutoConfig

    tokenizer = tiny.build_tokenizer()
    tokenizer.save_pretrained(tmp_path)
    AutoConfig.for_model(family).save_pretrained(tmp_path)
    before = AutoConfig.from_pretrained(tmp_path).get_text_config().to_dict()
    write_portable_config(tmp_path, tokenizer, ENDS)
    after = AutoConfig.from_pretrained(tmp_path).get_text_config().to_dict()
    assert before["rope_parameters"] == after["rope_parameters"]
    assert before.get("layer_types") == after.get("layer_types")


def test_several_templates_stay_several(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = save_model(tmp_path, "llama")
    tokenizer.chat_template = {"default": tiny.CHATML, "tool_use": "{{ tools }}"}
    tokenizer.save_pretrained(tmp_path)
    write_portable_config(tmp_path, tokenizer, ENDS)
    assert [path.suffix for path in tmp_path.rglob("*.jinja")] == []
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template


def test_what_older_names_cannot_say_is_named(tmp_path: Path) -> None:
    tokenizer = save_model(tmp_path, "gemma3_pairs")
    path = tmp_path / CONFIG
    kinds = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
    path.write_text(json.dumps(json.loads(path.read_text()) | {"layer_types": kinds}))
    write_portable_config(tmp_path, tokenizer, ENDS)
    assert older_reader_differences(tmp_path, tokenizer, TEXTS) == ["layer_types"]
    tokenizer.add_tokens(["parcel"])
    assert older_reader_differences(tmp_path, tokenizer, ["a parcel"]) == [
        "layer_types",
        "tokenizer",
    ]


@pytest.mark.skipif(not OLD_PYTHONS, reason="CLOUDFT_OLD_TRANSFORMERS names no Python")
def test_older_versions_compute_the_same(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    for family in FAMILIES:
        folder = tmp_path / family
        tokenizer = save_model(folder, family)
        write_portable_config(folder, tokenizer, ENDS)
        model = AutoModelForCausalLM.from_pretrained(folder).eval()
        with torch.inference_mode():
            logits = model(input_ids=torch.arange(40)[None]).logits[0]
        user = {"role": "user", "content": "Hi"}
        expected = {
            "since": SINCE.get(family, (4, 51)),
            "texts": TEXTS,
            "ids": [tokenizer(text)["input_ids"] for text in TEXTS],
            "chat": tokenizer.apply_chat_template([user], tokenize=False),
            "ends": ENDS,
            "logits": logits.tolist(),
        }
        (folder / "expected.json").write_text(json.dumps(expected))
    for python in OLD_PYTHONS:
        command = [python, "-c", COMPARES, *(str(tmp_path / family) for family in FAMILIES)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        assert len(done.stdout.split()) >= len(FAMILIES) - len(SINCE)
