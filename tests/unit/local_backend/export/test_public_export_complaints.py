"""Public reports of the kind "the exported model is not the tuned one", against our exports.

Each trains a job whose base has what was lost there, exports it as a merged folder and as a GGUF
file, and compares both, in transformers and in llama.cpp, with the tuned model as training left it:
prompts, log-probabilities and end of held-out answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
import tokenizer_kinds
import torch
from trainer_run import RunTrainer

from local_backend.errors import TrainerError
from local_backend.export.engines import run
from local_backend.export.export_model import export_model
from local_backend.export.gguf import write_gguf
from local_backend.export.options import ExportOptions
from local_backend.export.runtime_comparison import DECODING, TOLERANCE
from local_backend.export.tuned_model import load_tuned_model
from local_backend.export.verify import compare_records
from local_backend.job_dir import JobDir
from local_backend.models.load_model import LoadedModel

pytest.importorskip("xllamacpp")

NEW_TOKENS = 8
ORIGINAL = 32
"""Tokens of the context before rope settings stretched it: all prompts are longer."""
QUESTIONS = (
    "Where is the parcel for Lyon? The parcel never came, and I want my money back.",
    "It's 12345 items, isn't it?\n\n\nNo:  they're Zürich's; 3.5 of 100000 came TODAY.",
)
SYSTEM = {"role": "system", "content": "You route tickets."}
PROMPTS = [{"messages": [SYSTEM, {"role": "user", "content": text}]} for text in QUESTIONS]
REQUEST = {
    "records": [{"prompt": prompt, "text": "It is in Lyon."} for prompt in PROMPTS],
    "maxNewTokens": NEW_TOKENS,
}
GEMMA_SETTINGS = {
    "head_dim": 32,
    "layer_types": ["sliding_attention", "full_attention"],
    "query_pre_attn_scalar": 24,
}
OWN_TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'system' %}<<{{ m['content'] }}>>\n"
    "{% elif m['role'] == 'user' %}[Q] {{ m['content'] | trim }} [/Q]"
    "{% else %}{{ m['content'] }}<|im_end|>{% endif %}{% endfor %}"
)
"""Another template than ChatML, which writes a system message its own way."""


def build_base(folder: Path, family: str = "llama", tokenizer: Any = None, **settings: Any) -> Path:
    """Save a random model of a family, all of whose weights differ from their first values."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = tokenizer or tiny.build_tokenizer()
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": tiny.CONTEXT,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": None,
    }
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**sizes | settings))
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim == 1:
                weight.add_(torch.randn_like(weight) * 0.2)
            else:
                weight.normal_(std=0.5 if "embed" in name else 0.25)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def faults(train: RunTrainer, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that trains on a base, exports, and returns what differs in a runtime."""

    def train_and_compare(base: Path, **changes: Any) -> list[str]:
        settings = {"epochCount": 1, "learningRate": 0.02} | changes
        trained = train(6, model=base, **settings)
        assert trained.status == "Completed", trained.log
        return compare_exports(trained.path, tmp_path / "out")

    return train_and_compare


def compare_exports(job: Path, out: Path) -> list[str]:
    """Export a job as a folder and as a GGUF file, and return what differs from the tuned model."""
    tuned = load_tuned_model(JobDir(job)).loaded
    tuned.model.config.use_cache = True
    export_model(JobDir(job), out, ExportOptions())
    write_gguf(out, out / "model.gguf", "f32")
    found = []
    for runtime, model in (("transformers", out), ("llama_cpp", out / "model.gguf")):
        engine = run.load_engine(runtime, model, out)
        compared = compare_records(tuned, engine, REQUEST, TOLERANCE["float32"])
        difference = compared["difference"]
        # Equal up to rounding, which decides where two tokens are equally likely.
        if difference is not None and difference["layer"] != DECODING:
            found.append(f"{runtime}: {difference['layer']}: {difference['detail']}")
    return found


@pytest.mark.parametrize("template", [OWN_TEMPLATE, None], ids=["own", "none"])
def test_the_template_is_lost(faults: Any, tmp_path: Path, template: str | None) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/7062: a tuned Llama 3 "loses training data" as
    GGUF: it was prompted by another template.

    A base without a template is trained with the plain one, which must be in the exports too.
    """
    base = build_base(tmp_path / "base", tokenizer=tiny.build_tokenizer(template))
    assert faults(base) == []


def test_the_end_token_is_lost(train: RunTrainer, tmp_path: Path) -> None:
    """https://github.com/ollama/ollama/issues/8363: answers of a tuned Llama 3.1 do not end: it has
    a second end token in generation_config.json.
    """
    base = build_base(tmp_path / "base")
    trained = train(6, model=base, epochCount=1, learningRate=0.02)
    token = answer_token(load_tuned_model(JobDir(trained.path)).loaded)
    path = base / "generation_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"eos_token_id": [config["eos_token_id"], token]}))
    tuned = load_tuned_model(JobDir(trained.path)).loaded
    assert token in tuned.stop_ids
    assert compare_exports(trained.path, tmp_path / "out") == []


def answer_token(tuned: LoadedModel) -> int:
    """Return a token in the middle of the answer to the first question."""
    from local_backend.inference.completion import encode_prompt, generate_batch

    ids = encode_prompt(tuned, PROMPTS[0])
    [answer] = generate_batch(tuned, [ids], {"maxNewTokens": NEW_TOKENS})
    later = [t for at, t in enumerate(answer) if at > 1 and t not in answer[:at]]
    return int((later or answer)[0])


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "full"},
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"}},
        {"lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": ["q_proj", "lm_head"]}},
    ],
    ids=["full", "adapter", "adapter-of-the-head"],
)
def test_the_tied_head_is_lost(faults: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """https://github.com/huggingface/peft/issues/2018 and
    https://github.com/huggingface/transformers/issues/45127: an adapter of a tied head is merged
    into the embedding too, or is lost when the folder is loaded.
    """
    assert faults(build_base(tmp_path / "base", tie_word_embeddings=True), **changes) == []


def test_embeddings_were_resized(faults: Any, tmp_path: Path) -> None:
    """https://github.com/axolotl-ai-cloud/axolotl/issues/2277: after training with added tokens,
    sizes do not match, or the new tokens are others.
    """
    from transformers import AutoModelForCausalLM

    tokenizer = tiny.build_tokenizer(
        tiny.CHATML.replace("{{ message['content'] }}", "<ticket>{{ message['content'] }}</ticket>")
    )
    base = build_base(tmp_path / "base", tokenizer=tokenizer)
    tokenizer.add_tokens(["<ticket>", "</ticket>"], special_tokens=True)
    tokenizer.add_tokens(["Lyon?"])
    model = AutoModelForCausalLM.from_pretrained(base)
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    assert faults(base, method="full") == []


ROPES = {
    "linear": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10_000.0},
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": ORIGINAL,
        "rope_theta": 500_000.0,
    },
    "theta": {"rope_type": "default", "rope_theta": 500_000.0},
    "yarn": {
        "rope_type": "yarn",
        "factor": 8.0,
        "original_max_position_embeddings": ORIGINAL,
        "rope_theta": 10_000.0,
    },
}


@pytest.mark.parametrize("kind", sorted(ROPES))
def test_the_rope_scaling_is_lost(faults: Any, tmp_path: Path, kind: str) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/11002 and
    https://github.com/ggml-org/llama.cpp/issues/24820: the converter does not read where the
    settings are, and says nothing.
    """
    base = build_base(tmp_path / "base", rope_parameters=ROPES[kind])
    assert faults(base) == []


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_biases_are_lost(faults: Any, tmp_path: Path, family: str) -> None:
    """https://github.com/ggml-org/llama.cpp/pull/4283 and
    https://github.com/mlc-ai/mlc-llm/pull/3494: a Llama with biases answers nonsense, as they are
    not read.
    """
    settings = {"attention_bias": True} if family == "llama" else {}
    assert faults(build_base(tmp_path / "base", family, **settings), method="full") == []


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_queries_and_keys_are_permuted(faults: Any, tmp_path: Path, heads: int) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/2376 and
    https://github.com/huggingface/transformers/issues/31766: rows of queries and keys are in
    another order in a GGUF file, by the number of heads of each.
    """
    assert faults(build_base(tmp_path / "base", num_key_value_heads=heads)) == []


@pytest.mark.parametrize(
    ("family", "settings"),
    [("gemma", {"head_dim": 32}), ("gemma2", GEMMA_SETTINGS), ("gemma3_text", GEMMA_SETTINGS)],
    ids=["gemma", "gemma2", "gemma3"],
)
def test_the_offset_of_norms_is_lost(
    faults: Any, tmp_path: Path, family: str, settings: dict[str, Any]
) -> None:
    """https://github.com/vllm-project/vllm/pull/31464 and
    https://github.com/ggml-org/llama.cpp/pull/5631: Gemma's norms are kept around zero in its own
    folders, around one in a GGUF file.
    """
    assert faults(build_base(tmp_path / "base", family, **settings), method="full") == []


@pytest.mark.parametrize("changes", [{"method": "full"}, {}], ids=["full", "adapter"])
def test_the_vocabulary_is_padded(faults: Any, tmp_path: Path, changes: dict[str, Any]) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/6938 and
    https://github.com/ggml-org/llama.cpp/issues/5910: the embedding has more rows than the
    tokenizer has tokens; the file does not load, or answers with the padding.
    """
    rows = len(tiny.build_tokenizer()) + 24
    assert faults(build_base(tmp_path / "base", vocab_size=rows), **changes) == []


@pytest.mark.parametrize("kind", ["byte-level", "llama3", "tekken"])
def test_texts_are_split_by_another_pre_tokenizer(faults: Any, tmp_path: Path, kind: str) -> None:
    """https://github.com/ggml-org/llama.cpp/issues/7062 and
    https://github.com/ggml-org/llama.cpp/issues/9927: a GGUF file names its pre-tokenizer, and the
    converter names another one, or a default.
    """
    inner = tokenizer_kinds.KINDS[kind]()
    tokenizer = tokenizer_kinds.wrap(inner, tiny.CHATML, "<|im_end|>")
    assert faults(build_base(tmp_path / "base", tokenizer=tokenizer)) == []


def test_a_pre_tokenizer_that_llama_cpp_lacks_is_refused(train: RunTrainer, tmp_path: Path) -> None:
    """As above: it is not written under another one's name."""
    from tokenizers import Regex, pre_tokenizers

    tokenizer = tiny.build_tokenizer()
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\p{L}{1,2}|\d{5}"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    trained = train(6, model=build_base(tmp_path / "base", tokenizer=tokenizer), epochCount=1)
    with pytest.raises(TrainerError, match="pre-tokenizer"):
        compare_exports(trained.path, tmp_path / "out")
