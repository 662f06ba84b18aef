"""Tiny merged models of the families that are written as GGUF, compared with llama.cpp."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import tiny
import tiny_families
import torch
from llama_cpp_runs import LlamaCppRun, run_llama_cpp

from local_backend.export.gguf import GgufSummary, write_gguf

SLIDING, FULL = "sliding_attention", "full_attention"
CHANGES: dict[str, dict[str, Any]] = {
    "cohere2": {"num_hidden_layers": 4, "layer_types": [SLIDING, SLIDING, SLIDING, FULL]},
    "exaone4": {"layer_types": [FULL, FULL], "sliding_window": None},
    "gemma3_text": {"num_hidden_layers": 3, "layer_types": [SLIDING, SLIDING, FULL]},
    "gpt_oss": {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0}},
    "granite": {
        "attention_multiplier": 0.4,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 3.0,
    },
    "granitemoe": {
        "attention_multiplier": 0.4,
        "embedding_multiplier": 2.0,
        "residual_multiplier": 0.5,
        "logits_scaling": 3.0,
    },
    "olmo3": {"num_hidden_layers": 4, "layer_types": [SLIDING, SLIDING, SLIDING, FULL]},
    "qwen3_moe": {"norm_topk_prob": True},
    "smollm3": {
        "num_hidden_layers": 4,
        "layer_types": [FULL] * 4,
        "no_rope_layers": [1, 1, 1, 0],
        "use_sliding_window": False,
    },
}
"""What a family's tiny model has besides the settings of tiny_families."""
WIDE_WINDOW = {"sliding_window": 128}
"""As wide as the context of the tiny models: for llama.cpp's architectures that know no windows."""
TOLERANCE = 1e-4
"""Of a log-probability, for the same arithmetic in another order."""
GELU_TOLERANCE = 1e-2
"""llama.cpp takes GELU from a table of 65,536 values in float16."""
PROMPT_LENGTHS = (4, 23)
"""The longer one is longer than the window of the tiny models."""


def build_tokenizer() -> Any:
    """Return a byte-level tokenizer whose tokens are ASCII.

    llama.cpp's server holds back what is no whole character yet, and its probabilities with it.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=200,
        special_tokens=["<|endoftext|>", "<|im_start|>", tiny.END],
        show_progress=False,
    )
    inner.train_from_iterator(tiny.SENTENCES, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, eos_token=tiny.END, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = tiny.CHATML
    return tokenizer


def build_merged(model_type: str, folder: Path, **changes: Any) -> Any:
    """Save a random tiny model of a family in `folder`, and return it. Vectors are random too."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    tokenizer = build_tokenizer()
    config_class = CONFIG_MAPPING[model_type]
    settings = tiny_families.tiny_settings(config_class().to_dict())
    settings |= tiny_families.EXCEPTIONS.get(model_type, {}) | CHANGES.get(model_type, {})
    settings |= {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": tokenizer.eos_token_id}
    torch.manual_seed(0)
    config = config_class(**(settings | {"vocab_size": len(tokenizer)} | changes))
    model = AutoModelForCausalLM.from_config(config).eval()
    randomize(model)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def randomize(model: Any) -> None:
    """Give a model weights that make large logits, biases and norms that matter."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            noise = torch.randn(weight.shape, generator=generator)
            if weight.ndim > 1 and "norm" not in name:
                weight.copy_(noise * 0.3)
            else:
                weight.add_(noise * 0.2)


def write_and_run(
    folder: Path, quantization: str = "f32", lengths: Sequence[int] = PROMPT_LENGTHS, **options: Any
) -> tuple[GgufSummary, list[list[int]], LlamaCppRun]:
    """Write a folder as GGUF and run random prompts in llama.cpp."""
    import json

    path = folder.with_suffix(".gguf")
    summary = write_gguf(folder, path, quantization)
    size = int(json.loads((folder / "config.json").read_text())["vocab_size"])
    numbers = random.Random(0)
    prompts = [[numbers.randrange(3, size) for _ in range(length)] for length in lengths]
    return summary, prompts, run_llama_cpp(path, prompts=prompts, vocabulary=size, **options)


def largest_difference(
    model: Any, prompts: Sequence[Sequence[int]], run: LlamaCppRun
) -> tuple[float, int]:
    """Return the largest difference of a log-probability, and how many positions were compared.

    Also assert that each of llama.cpp's tokens is the best one in transformers too, up to that
    difference.
    """
    worst, positions = 0.0, 0
    for difference in position_differences(model, prompts, run):
        worst = max(worst, float(difference.max()))
        positions += 1
    return worst, positions


def position_differences(
    model: Any, prompts: Sequence[Sequence[int]], run: LlamaCppRun
) -> Iterator[torch.Tensor]:
    """Yield the difference of each token's log-probability, position by position."""
    for prompt, answer, theirs in zip(
        prompts, run["answers"], run["log_probabilities"], strict=True
    ):
        with torch.inference_mode():
            logits = model(input_ids=torch.tensor([[*prompt, *answer]])).logits[0]
        ours = logits.float().log_softmax(-1)[len(prompt) - 1 :]
        for at, row in enumerate(theirs):
            difference = (ours[at] - torch.tensor(row)).abs()
            assert not difference.isnan().any()
            if at < len(answer):
                assert ours[at].max() - ours[at][answer[at]] <= 2 * difference.max()
            yield difference
