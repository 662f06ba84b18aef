"""Compare a training step with LoRA on stacked experts: here, and with PEFT's target_parameters.

    python benchmarks/expert_adapters.py [--experts 32] [--width 256] [--rounds 7]

One Qwen3-MoE of two layers with random weights, float32, one thread; the two take turns. PEFT adds
each update to the whole weights and computes the gradient of these; here only the tokens of each
expert go through A and B. Both give the same logits and gradients, which is checked. Memory is the
peak of the live tensors of a step, beyond those that are there before it.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
from smallest import build_parser

from local_backend.models import lora
from local_backend.settings import LoraSettings
from local_backend.training.memory_estimate import AllocationTracker

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj"]
STACKED = ["gate_up_proj", "down_proj"]
RANK, ALPHA = 8, 16


def build(experts: int, width: int) -> Any:
    """Return the base model, always the same."""
    from transformers import Qwen3MoeConfig, Qwen3MoeForCausalLM

    torch.manual_seed(0)
    return Qwen3MoeForCausalLM(
        Qwen3MoeConfig(
            vocab_size=256,
            hidden_size=width,
            moe_intermediate_size=2 * width,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=4,
            head_dim=64,
            num_experts=experts,
            num_experts_per_tok=4,
            use_cache=False,
        )
    )


def attach(experts: int, width: int) -> dict[str, Any]:
    """Return the model with equal adapters, ours and PEFT's."""
    from peft import LoraConfig, get_peft_model

    ours, theirs = build(experts, width), build(experts, width)
    lora.attach_adapters(ours, LoraSettings(RANK, ALPHA, 0.0, "all-linear"), seed=1)
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEAR, target_parameters=STACKED)
    theirs = get_peft_model(theirs, config)
    layers = dict(theirs.base_model.model.named_modules())
    with torch.no_grad():
        for name, layer in lora.lora_layers(ours):
            torch.nn.init.normal_(layer.lora_B, std=0.02)
            layers[name].lora_A["default"].weight.copy_(layer.lora_A)
            layers[name].lora_B["default"].weight.copy_(layer.lora_B)
    return {"ours": ours, "peft": theirs}


def step(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Run forward and backward; return the logits."""
    model.zero_grad()
    logits: torch.Tensor = model(input_ids=ids).logits
    logits.square().mean().backward()
    return logits.detach()


def peak_mb(model: Any, ids: torch.Tensor) -> float:
    """Return the peak of the tensors that a step allocates."""
    tracker = AllocationTracker(torch.device("cpu"))
    with tracker:
        step(model, ids)
    return tracker.peak_bytes / 2**20


def main() -> int:
    """Print a table."""
    parser = build_parser(__doc__)
    parser.add_argument("--experts", type=int, default=32)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=7)
    args = parser.parse_args()
    if args.smallest:
        args.experts, args.width, args.tokens, args.rounds = 4, 32, 32, 1
    torch.set_num_threads(1)
    models = attach(args.experts, args.width)
    ids = torch.randint(0, 256, (4, args.tokens // 4), generator=torch.Generator().manual_seed(2))
    logits = {name: step(model, ids) for name, model in models.items()}
    torch.testing.assert_close(logits["ours"], logits["peft"], atol=1e-4, rtol=1e-4)
    peaks = {name: peak_mb(model, ids) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(args.rounds):
        for name, model in models.items():
            start = time.process_time()
            step(model, ids)
            seconds[name].append(time.process_time() - start)
    ratio = statistics.median(
        theirs / ours for ours, theirs in zip(seconds["ours"], seconds["peft"], strict=True)
    )
    print(f"{args.experts} experts, width {args.width}, {args.tokens} tokens, rank {RANK}")
    print("| trainer | CPU s a step | peak of a step |\n| --- | --- | --- |")
    for name, values in seconds.items():
        print(f"| {name} | {statistics.median(values):.3f} | {peaks[name]:.0f} MB |")
    print(f"theirs to ours, median of {args.rounds} rounds: {ratio:.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
