"""A language model that trains in seconds: random, two layers, with a tokenizer of its own.

Also the job folders and job files that train it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

END = "<|im_end|>"
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
CONTEXT = 256
OPTIONAL_SETTINGS = {"preference", "grader", "reinforcement"}
"""Keys of job.json that most jobs leave out."""
CITIES = ("Lyon", "Oslo", "Quito", "Cairo", "Lima", "Bonn", "Rome", "Kyiv")
SENTENCES = [
    *(f"Where is the parcel for {city}? It is in {city}." for city in CITIES),
    "user assistant system billing delivery refund ### Instruction: ### Response:",
    *["One line.\n\nAnother line.\n\n\nThe last  line.   End."] * 4,
    "You route tickets. Answer with one word. The parcel never came, and I want my money back.",
]


def build_model(
    folder: Path, *, chat_template: str | None = CHATML, context: int = CONTEXT
) -> Path:
    """Save a random Llama of 2 layers and 32 dimensions in `folder`, with its tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = build_tokenizer(chat_template)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=None,
        initializer_range=0.4,  # large logits: an adapter can move them, answers are distinct
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def build_tokenizer(chat_template: str | None = CHATML, sentences: Sequence[str] = ()) -> Any:
    """Return a byte-level BPE tokenizer, which encodes and decodes every text without loss."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=["<|endoftext|>", "<|im_start|>", END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    inner.train_from_iterator([*SENTENCES, *sentences], trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def pair(prompt: str, completion: str) -> dict[str, str]:
    """Return a supervised record in its simplest shape."""
    return {"prompt": prompt, "completion": completion}


def pairs(count: int) -> list[dict[str, str]]:
    """Return `count` supervised records, all different, of different lengths."""
    return [
        pair(
            f"Where is parcel {number}{' for ' + city if number % 3 else ''}?",
            f"In {city}." if number % 2 else city,
        )
        for number in range(count)
        for city in [CITIES[number % len(CITIES)]]
    ]


def preferences(count: int) -> list[dict[str, Any]]:
    """Return `count` pairs of answers in the canonical format: short ones are preferred."""
    return [
        {
            "prompt": [{"role": "user", "content": [{"text": record["prompt"]}]}],
            "chosen": [{"role": "assistant", "content": [{"text": city}]}],
            "rejected": [
                {"role": "assistant", "content": [{"text": f"The last line. It is in {city}."}]}
            ],
        }
        for number, record in enumerate(pairs(count))
        for city in [CITIES[number % len(CITIES)]]
    ]


def texts(count: int) -> list[dict[str, str]]:
    """Return `count` unlabeled records."""
    return [{"input": f"Parcel {n} is in {CITIES[n % len(CITIES)]}."} for n in range(count)]


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> Path:
    """Write one record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return path


def write_job_dir(
    folder: Path, model: Path, data: Mapping[str, Sequence[Mapping[str, Any]]], **changes: Any
) -> Path:
    """Write a folder as the trainer expects it: job.json, the staged `data` by role, its manifest.

    `changes` replaces top-level keys of job.json; hyperparameters among them by their own names.
    """
    files = {}
    for role, records in data.items():
        path = write_jsonl(folder / "data" / f"{role}.jsonl", records)
        files[role] = {
            "path": f"data/{path.name}",
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "records": len(records),
        }
    (folder / "data" / "manifest.json").write_text(json.dumps({"files": files}), encoding="utf-8")
    parameters = {
        "epochCount": 2,
        "batchSize": 4,
        "learningRate": 1e-2,
        "learningRateWarmupSteps": 0,
    }
    parameters |= {name: changes.pop(name) for name in list(parameters) if name in changes}
    job = {
        "version": 1,
        "customizationType": "FINE_TUNING",
        "format": "prompt-completion",
        "model": {"name": "tiny", "weights": [{"kind": "folder", "path": str(model)}]},
        "method": "lora",
        "lora": {"r": 4, "alpha": 8, "dropout": 0.0, "target_modules": "all-linear"},
        "hyperParameters": parameters,
        "earlyStopping": None,
        "seed": 7,
        "device": "cpu",
        "dtype": "float32",
        "maxLength": None,
        "microBatchSize": None,
        "evalSteps": None,
        "maxTruncatedShare": 0.05,
        "processes": 1,
        "fsdp": False,
        "packed": "auto",
        "data": files,
    }
    unknown = changes.keys() - job.keys() - OPTIONAL_SETTINGS
    assert not unknown, f"not a setting of job.json: {unknown}"
    (folder / "job.json").write_text(json.dumps(job | changes), encoding="utf-8")
    return folder
