"""Compare the trainer with Hugging Face's and TRL's: `python benchmarks/train`.

`make bench-train` runs it. Contestants take turns, each in a fresh process, on the same records of
the example; ratios are of one round's figures. The table is appended to benchmarks/RESULTS.md. The
rows of TRL need trl.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "RESULTS.md"
LORA = ("ours", "ours-unshared", "hf-grouped", "hf-padded", "trl-grouped", "trl-padding-free")
FULL = ("full-ours", "full-ours-unshared", "full-trl-grouped")
PARAMETERS = 106_168_320
"""Weights of SmolLM2-135M's linear layers, without the output layer."""
HEAD = 49_152 * 576
"""Weights of the output layer, which is computed only for tokens that need logits."""
ENVIRON = {"MALLOC_ARENA_MAX": "1", "GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1"}
"""The environment of every contestant."""


def run(name: str, records: str, steps: int, first: int, dtype: str = "bfloat16") -> dict[str, Any]:
    """Return one contestant's figures. Raise RuntimeError with its last line."""
    command = [sys.executable, str(HERE / "contestant.py"), name, records, str(steps), str(first)]
    done = subprocess.run(
        [*command, "--dtype", dtype], capture_output=True, text=True, env=os.environ | ENVIRON
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def matmul_peak() -> float:
    """Return the best GFLOP/s of bfloat16 products at the layers' shapes."""
    import torch

    best = 0.0
    for rows, width, out in ((1024, 576, 1536), (1024, 1536, 576), (1024, 576, 3072)):
        a, b = torch.randn(rows, width).bfloat16(), torch.randn(out, width).bfloat16()
        a @ b.T
        started = time.perf_counter()
        for _ in range(50):
            a @ b.T
        best = max(best, 50 * 2 * rows * width * out / (time.perf_counter() - started) / 1e9)
    return best


def table(records: str, names: tuple[str, ...], steps: int, rounds: int) -> list[str]:
    """Return the rows of one set of records."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names:
            figures = run(name, records, steps, turn * steps * 8)
            results[name].append(figures)
            print(records, turn, name, round(figures["tokensPerSecond"]), file=sys.stderr)
    peak, ours = matmul_peak(), results[names[0]]
    lines = [
        "| trainer | tok/s | ours to it, by round | records/s | first step | peak | loss |"
        " of matmul peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        rows = results[name]
        speed = statistics.mean(r["tokensPerSecond"] for r in rows)
        ratios = ", ".join(
            f"{mine['tokensPerSecond'] / r['tokensPerSecond']:.2f}"
            for mine, r in zip(ours, rows, strict=True)
        )
        each = (6 if name.startswith("full-") else 4) / 1e9
        body = statistics.mean(r["throughPerSecond"] for r in rows) * PARAMETERS
        head = statistics.mean(r["headsPerSecond"] for r in rows) * HEAD
        used = each * (body + head) / peak
        lines.append(
            f"| {name} | {speed:.0f} | {ratios} |"
            f" {statistics.mean(r['recordsPerSecond'] for r in rows):.1f} |"
            f" {min(r['firstStep'] for r in rows):.1f} s | {max(r['peak'] for r in rows):.2f} GB |"
            f" {rows[-1]['losses'][-1]:.3f} | {used:.0%} |"
        )
    return lines


def losses(records: str, steps: int) -> list[str]:
    """Return how far packed losses are from padded ones, and bfloat16's from float32's."""
    exact = run("padded", records, steps, 0, "float32")["losses"]
    packed = run("ours", records, steps, 0, "float32")["losses"]
    half = run("ours", records, steps, 0)["losses"]
    stock = run("hf-padded", records, steps, 0)["losses"]
    largest = max(abs(a - b) for a, b in zip(exact, packed, strict=True))

    def offset(other: list[float]) -> str:
        return f"{statistics.mean(b - a for a, b in zip(exact, other, strict=True)):+.4f}"

    return [
        f"{records}, {steps} steps: float32 packed against float32 padded: at most {largest:.1e} at"
        f" any step; mean distance from float32 padded: ours bfloat16 {offset(half)},"
        f" HF bfloat16 {offset(stock)} (loss {statistics.mean(exact):.3f})."
    ]


def main() -> int:
    """Run all contestants and append the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--smallest", action="store_true", help="our trainer alone, not recorded")
    args = parser.parse_args()
    if args.smallest:
        print("\n".join(table("intents", LORA[:1], 3, 1)))
        return 0
    trl = importlib.util.find_spec("trl") is not None
    lines = [f"\n## The trainer (`make bench-train`, {datetime.date.today()})\n"]
    for records, names in (("aws-cli", LORA), ("intents", LORA[:4]), ("aws-cli", FULL)):
        names = tuple(name for name in names if trl or "trl" not in name)
        lines += [
            f"{records}, {args.rounds} rounds of {args.steps} steps, the first two not timed\n"
        ]
        lines += [*table(records, names, args.steps, args.rounds), ""]
    lines += losses("aws-cli", args.steps)
    text = "\n".join(lines) + "\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
