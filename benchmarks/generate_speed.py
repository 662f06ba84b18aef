"""Compare `generate` with answers made in batches that stay together, as it was before.

    python benchmarks/generate_speed.py [--prompts 180] [--rounds 3] [--new-tokens 24]

The held-out prompts of the example `intents`, greedy, in float32. Both ways alternate in one
process with the same model, and their answers must be equal.
"""

from __future__ import annotations

import itertools
import json
import statistics
import time
from collections.abc import Sequence
from typing import Any
from unittest import mock

import torch
from evaluation_speed import EXAMPLE, load_base_model
from smallest import build_parser

from local_backend.inference.generate import answer_prompts
from local_backend.inference.model_variants import BASE, ModelVariants


def main() -> None:
    """Time both ways alternately."""
    parser = build_parser(__doc__)
    parser.add_argument("--prompts", type=int, default=180)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--new-tokens", type=int, default=24)
    args = parser.parse_args()
    count, rounds, limit = (4, 1, 4) if args.smallest else (args.prompts, args.rounds, 0)
    models = load_base_model()
    lines = (EXAMPLE / "data" / "test.jsonl").read_text(encoding="utf-8").splitlines()
    prompts = [
        {"messages": json.loads(line)["messages"][:-1]} for line in itertools.islice(lines, count)
    ]
    new_tokens = limit or args.new_tokens
    print(f"{len(prompts)} prompts, {new_tokens} tokens, {torch.get_num_threads()} threads")
    answer(models, prompts, new_tokens, batched=True)  # the copy of the weights is made here
    seconds: dict[str, list[float]] = {"before": [], "now": []}
    for _ in range(rounds):
        results = []
        for way in seconds:
            started = time.monotonic()
            results.append(answer(models, prompts, new_tokens, batched=way == "now"))
            seconds[way].append(time.monotonic() - started)
        assert results[0] == results[1], "the answers differ"
    for way, times in seconds.items():
        print(f"{way:<7} {statistics.median(times):7.2f} s")
    ratios = [a / b for a, b in zip(seconds["before"], seconds["now"], strict=True)]
    print(f"ratio   {statistics.median(ratios):7.2f} ({min(ratios):.2f}-{max(ratios):.2f})")


def answer(
    models: ModelVariants, prompts: Sequence[Any], new_tokens: int, *, batched: bool
) -> list[str]:
    """Return the answers; without `batched` those of groups that are decoded together."""
    request: Any = {"prompts": prompts, "variants": [BASE], "maxNewTokens": new_tokens}
    with mock.patch.object(models, "batched_answers", wraps=models.batched_answers) as patched:
        if not batched:
            patched.side_effect = lambda name: None
        replies = sorted(answer_prompts(models, request), key=lambda reply: reply["index"])
    return [str(reply["text"]) for reply in replies]


if __name__ == "__main__":
    main()
