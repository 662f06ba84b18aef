"""What the writer of GGUF refuses is refused before training, by the same code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizer_kinds

from local_backend.errors import TrainerError
from local_backend.export.check import check_exports
from local_backend.export.features import ModelFiles
from local_backend.export.gguf import write_gguf
from local_backend.export.gguf_check import check_gguf
from local_backend.export.rules import limit_context

ROPE = {"rope_theta": 10000.0, "original_max_position_embeddings": 64, "factor": 4.0}
YARN = {"rope_type": "yarn", **ROPE}
PLAIN = tokenizer_kinds.build_llama3


def save_model(folder: Path, family: str, inner: Any, **changes: Any) -> ModelFiles:
    """Save a model of one layer with a tokenizer. Return what its files say."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = tokenizer_kinds.wrap(inner, tiny.CHATML)
    settings = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "head_dim": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "eos_token_id": tokenizer.eos_token_id,
        "bos_token_id": None,
        "pad_token_id": None,
    }
    config = CONFIG_MAPPING[family](**settings | changes)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return ModelFiles(json.loads((folder / "config.json").read_text()))


def build_with_whole_word() -> Any:
    """Return a tokenizer with a token that is read as a word of its own alone."""
    from tokenizers import AddedToken

    inner = PLAIN()
    inner.add_tokens([AddedToken("<ORDER>", single_word=True)])
    return inner


CASES: dict[str, tuple[str, Any, dict[str, Any], str]] = {
    "biases": ("qwen3", PLAIN, {"attention_bias": True}, "has no place for weights"),
    "few rows": ("llama", PLAIN, {"vocab_size": 32}, "the model's embedding 32 rows"),
    "merges": ("llama", tokenizer_kinds.build_llama2, {}, "merges are not those of SentencePiece"),
    "partial rope": (
        *("llama", PLAIN),
        {"rope_parameters": {"rope_type": "default", **ROPE, "partial_rotary_factor": 0.5}},
        "partial_rotary_factor 0.5",
    ),
    "unigram": ("llama", tokenizer_kinds.KINDS["metaspace-always"], {}, "of type Unigram"),
    "whole word": ("llama", build_with_whole_word, {}, "'<ORDER>' is read as a word of its own"),
    "wordpiece": ("llama", tokenizer_kinds.KINDS["wordpiece"], {}, "of type WordPiece"),
    "yarn betas": (
        *("qwen3", PLAIN),
        {"rope_parameters": YARN | {"beta_fast": 16.0, "beta_slow": 2.0}},
        "these settings of rope scaling 'yarn'",
    ),
}


@pytest.mark.parametrize("case", sorted(CASES))
def test_what_the_writer_refuses_the_check_refuses_in_the_same_words(
    tmp_path: Path, case: str
) -> None:
    family, build, changes, named = CASES[case]
    files = save_model(tmp_path / "m", family, build(), **changes)
    with pytest.raises(TrainerError) as written:
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f16")
    with pytest.raises(TrainerError) as checked:
        check_gguf(files, "f16", str(tmp_path / "m"))
    assert named in checked.value.message
    assert (checked.value.message, checked.value.fix) == (written.value.message, written.value.fix)


def test_the_check_of_a_job_names_it_for_each_runtime_that_reads_gguf(tmp_path: Path) -> None:
    save_model(tmp_path / "m", "llama", tokenizer_kinds.KINDS["metaspace-always"]())
    request = {
        "model": {"name": "m", "weights": [{"kind": "folder", "path": str(tmp_path / "m")}]},
        "lora": {"r": 8, "target_modules": "all-linear"},
        "method": "lora",
        "exports": [
            {"runtime": "ollama", "format": "gguf"},
            {"runtime": "transformers", "format": "merged"},
        ],
        "context": None,
    }
    [finding] = check_exports(request)
    assert finding["runtime"] == "ollama" and finding["severity"] == "error"
    assert "of type Unigram" in finding["message"] and finding["fix"]


def test_a_context_is_limited_in_a_gguf_file_whose_yarn_names_its_lengths(tmp_path: Path) -> None:
    files = save_model(tmp_path / "m", "llama", PLAIN(), rope_parameters=YARN)
    limited = limit_context(files, 128, "gguf")
    assert limited.context == 128
    check_gguf(limited, "f16", str(tmp_path / "m"))
    whole = write_gguf(tmp_path / "m", tmp_path / "whole.gguf", "f32")
    path = tmp_path / "m" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"max_position_embeddings": 128}))
    short = write_gguf(tmp_path / "m", tmp_path / "short.gguf", "f32")
    assert (whole["contextLength"], short["contextLength"]) == (256, 128)
    assert read_rope(tmp_path / "whole.gguf") == read_rope(tmp_path / "short.gguf")
    with pytest.raises(TrainerError, match="follows from its context length") as caught:
        limit_context(files, 128, "merged")
    assert "--max-model-len 128" in str(caught.value.fix) and "--format gguf" in caught.value.fix
    unnamed = ModelFiles({**files.config, "rope_parameters": {"rope_type": "yarn", "factor": 4.0}})
    with pytest.raises(TrainerError) as unknown:
        limit_context(unnamed, 128, "gguf")
    assert "--format gguf" not in str(unknown.value.fix)


def read_rope(path: Path) -> dict[str, Any]:
    """Return the rope settings of a GGUF file, and the tensor that divides its frequencies."""
    import gguf

    reader = gguf.GGUFReader(path)
    found: dict[str, Any] = {
        name: field.contents() for name, field in reader.fields.items() if ".rope." in name
    }
    assert found
    tensors = [t for t in reader.tensors if t.name.startswith("rope")]
    return found | {t.name: t.data.tolist() for t in tensors}
