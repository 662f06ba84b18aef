"""Compare rows without padding with padded ones in the model's own forward pass.

    GOMP_SPINCOUNT=1000 MALLOC_ARENA_MAX=1 python benchmarks/padding_free.py

LoRA in bfloat16 on random models of about 50 million parameters, on batches of records of mixed
length: one step, forward and backward, split into micro-batches as a job splits it. The two forms
take turns. Printed are the medians of wall and CPU time, the peak of live tensors, the tokens that
went through the model, and the loss, which has to be the same.
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from smallest import build_parser

from local_backend.data.batches import MicroBatchLimit, split_into_micro_batches
from local_backend.data.examples import Example
from local_backend.models import lora
from local_backend.models.load_model import LoadedModel
from local_backend.settings import LoraSettings
from local_backend.training.loss import PaddedLoss, PaddingFreeLoss
from local_backend.training.memory_estimate import AllocationTracker
from local_backend.training.objectives import find_objective

CPU = torch.device("cpu")
LIMIT = MicroBatchLimit(sys.maxsize, 2048)
VOCABULARY = 16_384
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3_moe": {
        "hidden_size": 512,
        "num_hidden_layers": 6,
        "num_experts": 8,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 512,
    },
    "gemma2": {
        "hidden_size": 576,
        "num_hidden_layers": 9,
        "intermediate_size": 1536,
        "sliding_window": 128,
    },
}
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64}


class PadToken:
    """The part of a tokenizer that a training step uses."""

    pad_token_id = 0


def build_model(family: str, *, smallest: bool) -> LoadedModel:
    """Return a random model with adapters, as a LoRA job has it."""
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    shape = SHAPES[family] | HEADS | {"vocab_size": VOCABULARY}
    if smallest:
        shape |= {"hidden_size": 64, "num_hidden_layers": 1}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[family](**shape), dtype=torch.bfloat16)
    model.config.use_cache = False
    lora.attach_adapters(model, LoraSettings(16, 32, 0.0, "all-linear"), 1)
    return LoadedModel(model.train(), PadToken(), "", [0], False)  # type: ignore[arg-type]


def make_records(lengths: list[int]) -> list[Example]:
    """Return random records of which the last third is learned."""
    random = np.random.default_rng(1)
    return [
        Example(
            random.integers(5, VOCABULARY, length).astype(np.int32),
            np.arange(length) >= length * 2 // 3,
        )
        for length in lengths
    ]


def mixed_lengths(count: int) -> list[int]:
    """Return lengths as chats have them: the median is 80 tokens, few are long."""
    drawn = np.random.default_rng(2).lognormal(np.log(80), 0.8, count)
    return [int(length) for length in np.clip(drawn, 12, 500)]


def run_step(loss: Any, records: list[Example]) -> tuple[float, int]:
    """Return the loss of one step and the tokens that went through the model."""
    total, tokens = 0.0, 0
    for part in split_into_micro_batches(records, LIMIT, loss.count_tokens):
        result = loss(part)
        result.backward()
        total, tokens = total + result.item(), tokens + loss.count_tokens(part)
    loss.loaded.model.zero_grad(set_to_none=True)
    return total, tokens


def compare(loaded: LoadedModel, records: list[Example], rounds: int) -> None:
    """Print the figures of both forms on the same records."""
    objective = find_objective("FINE_TUNING")
    forms = [
        kind(loaded, objective, torch.bfloat16, CPU, reason="measured")
        for kind in (PaddedLoss, PaddingFreeLoss)
    ]
    times: dict[str, list[tuple[float, float]]] = {form.name: [] for form in forms}
    for turn in range(rounds + 1):
        for form in forms:
            start = time.perf_counter(), time.process_time()
            run_step(form, records)
            if turn or rounds == 1:  # the first one compiles
                times[form.name].append(
                    (time.perf_counter() - start[0], time.process_time() - start[1])
                )
    medians = {
        name: [statistics.median(values) for values in zip(*runs, strict=True)]
        for name, runs in times.items()
    }
    for form in forms:
        with AllocationTracker(CPU) as tracker:
            value, tokens = run_step(form, records)
        wall, cpu = medians[form.name]
        ratios = [a / b for a, b in zip(medians["padded"], medians[form.name], strict=True)]
        print(
            f"  {form.name:13} {wall:6.2f} s ({cpu:.2f} s CPU)  {ratios[0]:.2f}x ({ratios[1]:.2f}x)"
            f"  {tracker.peak_bytes / 1e6:6.0f} MB  {tokens:6} tokens  loss {value:.2f}",
            flush=True,
        )


def main() -> None:
    """Measure."""
    options = build_parser(__doc__)
    options.add_argument("--rounds", type=int, default=5)
    arguments = options.parse_args()
    count = 4 if arguments.smallest else 32
    sets = {
        "mixed lengths": mixed_lengths(count),
        "30 to 300 tokens": [int(n) for n in np.linspace(30, 300, min(count, 8))],
        "equal lengths": [100] * count,
    }
    for family in SHAPES:
        loaded = build_model(family, smallest=arguments.smallest)
        size = sum(weight.numel() for weight in loaded.model.parameters())
        for name, lengths in sets.items():
            print(f"{family}, {size / 1e6:.0f} million parameters, {name}: {len(lengths)} records")
            compare(loaded, make_records(lengths), 1 if arguments.smallest else arguments.rounds)


if __name__ == "__main__":
    main()
