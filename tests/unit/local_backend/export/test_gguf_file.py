"""A GGUF file: precision, end tokens, sampling, whole or not there at all."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from llama_cpp_runs import run_llama_cpp
from llama_models import build_merged, largest_difference, position_differences, write_and_run
from transformers import GenerationConfig

from local_backend.errors import TrainerError
from local_backend.export.gguf import file as gguf_file
from local_backend.export.gguf import write_gguf
from local_backend.export.gguf.precision import QUANTIZATIONS

WIDE = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "head_dim": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
"""Sizes that fit the blocks of 256 weights of the K-quants."""
MEAN_ERRORS = {
    "F32": 1e-5,
    "F16": 0.01,
    "BF16": 0.05,
    "Q8_0": 0.1,
    "Q6_K": 0.25,
    "Q5_K_M": 0.5,
    "Q5_0": 0.5,
    "Q5_1": 0.5,
    "Q4_K_M": 1.0,
    "Q4_0": 1.0,
    "Q4_1": 1.0,
}
"""Mean difference of a log-probability, of a random model with log-probabilities of -5 to -15."""


def read_fields(path: Path) -> dict[str, Any]:
    """Return the settings of a GGUF file."""
    from gguf import GGUFReader

    return {name: field.contents() for name, field in GGUFReader(path).fields.items()}


def change_generation(folder: Path, **changes: Any) -> None:
    """Change generation_config.json."""
    path = folder / "generation_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes), encoding="utf-8")


@pytest.mark.parametrize("quantization", sorted(QUANTIZATIONS))
def test_each_precision_loads_and_its_probabilities_are_near(
    tmp_path: Path, quantization: str
) -> None:
    model = build_merged("llama", tmp_path / "m", **WIDE)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 2:
                weight.mul_(0.25)
    model.save_pretrained(tmp_path / "m")
    summary, prompts, run = write_and_run(tmp_path / "m", quantization, new_tokens=1)
    [*differences] = position_differences(model, prompts, run)
    assert float(torch.stack(differences).mean()) < MEAN_ERRORS[quantization]
    kinds = summary["types"]
    assert kinds["F32"] >= 5  # norms
    assert sum(kinds.values()) == summary["tensors"]
    assert summary["bytes"] == (tmp_path / "m.gguf").stat().st_size
    shown = run["properties"]["model_ftype"].upper().replace(" - MEDIUM", "_M")
    assert shown.removeprefix("ALL ") == quantization


def test_rows_that_fit_no_block_are_kept_more_precisely(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m", intermediate_size=72)
    summary, _, run = write_and_run(tmp_path / "m", "q4_k_m")
    assert summary["types"].keys() == {"F16", "F32", "Q5_0", "Q8_0"}
    assert run["answers"]


def test_unknown_precision_is_refused(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m")
    with pytest.raises(TrainerError, match="name one of f32, f16"):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "q3")


def test_k_quants_need_llama_cpp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("local_backend.export.gguf.precision._ggml", lambda: None)
    build_merged("llama", tmp_path / "m")
    with pytest.raises(TrainerError, match=r"cloudft\[llama-cpp\]"):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "q4_k_m")


def test_greedy_model_does_not_sample(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m")
    change_generation(tmp_path / "m", do_sample=False, repetition_penalty=1.3)
    _, _, run = write_and_run(tmp_path / "m")
    defaults = run["properties"]["default_generation_settings"]["params"]
    assert defaults["temperature"] == 0
    assert defaults["repeat_penalty"] == pytest.approx(1.3)


def test_every_token_before_counts_as_a_repetition(tmp_path: Path) -> None:
    model = build_merged("llama", tmp_path / "m")
    change_generation(tmp_path / "m", do_sample=False, repetition_penalty=5.0)
    new = {"max_new_tokens": 8, "do_sample": False}
    # More than llama.cpp's own 64 tokens.
    options: Any = {"lengths": [100], "new_tokens": 8, "request": {"temperature": 0}}
    _, [prompt], run = write_and_run(tmp_path / "m", **options)
    ids = torch.tensor([prompt])
    expected, free = (
        model.generate(ids, repetition_penalty=penalty, **new)[0, len(prompt) :].tolist()
        for penalty in (5.0, 1.0)
    )
    assert run["answers"] == [expected] != [free]


def test_sampling_of_a_model_is_kept(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m")
    change_generation(tmp_path / "m", do_sample=True, temperature=0.6, top_p=0.9)
    _, _, run = write_and_run(tmp_path / "m")
    defaults = run["properties"]["default_generation_settings"]["params"]
    chosen = {name: defaults[name] for name in ("temperature", "top_p", "top_k", "min_p")}
    assert chosen == pytest.approx({"temperature": 0.6, "top_p": 0.9, "top_k": 50, "min_p": 0})


def test_tokens_are_drawn_from_the_distribution_of_transformers(tmp_path: Path) -> None:
    """llama.cpp's own order of samplers keeps 24 tokens here instead of 14."""
    model = build_merged("llama", tmp_path / "m")
    settings = {"temperature": 0.7, "top_p": 0.8, "min_p": 0.01, "top_k": 50}
    change_generation(tmp_path / "m", do_sample=True, **settings)
    options: Any = {"lengths": [6], "new_tokens": 1, "request": {"post_sampling_probs": True}}
    _, [prompt], run = write_and_run(tmp_path / "m", **options)
    answer = model.generate(
        torch.tensor([prompt]),
        generation_config=GenerationConfig(do_sample=True, **settings),
        max_new_tokens=1,
        output_scores=True,
        return_dict_in_generate=True,
    )
    expected = answer.scores[0][0].log_softmax(-1)
    assert 1 < int(expected.isfinite().sum()) < 40
    found = torch.tensor(run["log_probabilities"][0][0])
    assert torch.allclose(found.exp(), expected.exp(), atol=1e-4)


def test_each_end_token_ends_an_answer(tmp_path: Path) -> None:
    model = build_merged("llama", tmp_path / "m")
    _, prompts, run = write_and_run(tmp_path / "m", lengths=[6], new_tokens=4)
    [first, second] = list(dict.fromkeys(run["answers"][0]))[:2]
    config = json.loads((tmp_path / "m" / "generation_config.json").read_text())
    for token in (first, second):
        change_generation(tmp_path / "m", eos_token_id=[config["eos_token_id"], 5, token])
        write_gguf(tmp_path / "m", tmp_path / "e.gguf", "f32")
        ended = run_llama_cpp(tmp_path / "e.gguf", prompts=prompts, new_tokens=4)
        assert ended["stops"] == ["eos"]
        assert ended["answers"][0] in (run["answers"][0][:1], run["answers"][0][:2])
    assert model is not None


def test_end_tokens_beyond_three_are_named(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m")
    change_generation(tmp_path / "m", eos_token_id=[2, 4, 5, 6])
    notes = write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")["notes"]
    assert len(notes) == 1
    assert notes[0].startswith("a GGUF file names three end tokens; not ")


def test_embedding_with_more_rows_than_tokens_is_kept_whole(tmp_path: Path) -> None:
    model = build_merged("llama", tmp_path / "m", vocab_size=256)
    _, prompts, run = write_and_run(tmp_path / "m")
    assert largest_difference(model, prompts, run)[0] < 1e-4
    fields = read_fields(tmp_path / "m.gguf")
    assert len(fields["tokenizer.ggml.tokens"]) == 256
    assert fields["tokenizer.ggml.tokens"][-1] == "[PAD255]"


def test_embedding_with_fewer_rows_than_tokens_is_refused(tmp_path: Path) -> None:
    build_merged("llama", tmp_path / "m", vocab_size=64)
    with pytest.raises(TrainerError, match="the model's embedding 64 rows"):
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")


def test_file_appears_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_merged("llama", tmp_path / "m")
    (tmp_path / "out").mkdir()
    seen: list[tuple[int, int]] = []

    def fail(done: int, total: int) -> None:
        seen.append((done, total))
        assert not (tmp_path / "out" / "m.gguf").exists()
        if len(seen) == 3:
            raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        write_gguf(tmp_path / "m", tmp_path / "out" / "m.gguf", "f32", progress=fail)
    assert list((tmp_path / "out").iterdir()) == []
    write_gguf(
        tmp_path / "m", tmp_path / "out" / "m.gguf", "f32", progress=lambda *p: seen.append(p)
    )
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["m.gguf"]
    assert seen[-1][0] == seen[-1][1]


def test_unknown_family_is_refused_with_a_way_out(tmp_path: Path) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(vocab_size=200, n_embd=32, n_layer=1, n_head=2)
    GPT2LMHeadModel(config).save_pretrained(tmp_path / "m")
    with pytest.raises(TrainerError, match="family 'gpt2' are not written") as refused:
        write_gguf(tmp_path / "m", tmp_path / "m.gguf", "f32")
    assert refused.value.fix is not None
    assert gguf_file.GGUF_FAMILIES
