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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RESULTS = HERE.parent / "RESULTS.md"
LORA = ("ours", "ours-unshared", "hf-grouped", "hf-padded", "trl-grouped", "trl-padding-free")
SHAPED = ("ours", "ours-unshared", "hf-grouped")
OLD = "old-"
"""Begins the names of an older checkout's contestants (--against)."""
FULL = ("full-ours", "full-ours-unshared", "full-trl-grouped")
ENVIRON = {"MALLOC_ARENA_MAX": "1", "GOMP_SPINCOUNT": "1000", "HF_HUB_OFFLINE": "1"}
"""The environment of every contestant."""


@dataclass(frozen=True)
class Race:
    """What contestants run on."""

    records: str
    steps: int
    model: str = "smollm2"
    dtype: str = "bfloat16"
    against: Path | None = None
    """The older checkout."""


def run(race: Race, name: str, first: int) -> dict[str, Any]:
    """Return one contestant's figures. Raise RuntimeError with its last line."""
    command = [sys.executable, str(HERE / "contestant.py"), name.removeprefix(OLD), race.records]
    command += [str(race.steps), str(first), "--model", race.model, "--dtype", race.dtype]
    if name.startswith(OLD):
        command += ["--checkout", str(race.against)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ENVIRON)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.strip().splitlines()[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


RACES = (
    ("smollm2", "aws-cli", LORA),
    ("smollm2", "intents", LORA[:4]),
    ("smollm2", "aws-cli", FULL),
    ("qwen3", "aws-cli", SHAPED),
    ("gemma3", "aws-cli", SHAPED),
)
"""Model, records and contestants of each table."""


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


def table(race: Race, names: tuple[str, ...], rounds: int) -> list[str]:
    """Return the rows of one race."""
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names:
            figures = run(race, name, turn * race.steps * 8)
            results[name].append(figures)
            print(
                race.model,
                race.records,
                turn,
                name,
                round(figures["tokensPerSecond"]),
                file=sys.stderr,
            )
    peak, ours = matmul_peak(), results[names[0]]
    lines = [
        "| trainer | tok/s | ours to it, by round | records/s | first step | peak | loss |"
        " of matmul peak |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name in names:
        rows = results[name]
        mean = statistics.mean(r["tokensPerSecond"] for r in rows)
        ratios = ", ".join(
            f"{mine['tokensPerSecond'] / r['tokensPerSecond']:.2f}"
            for mine, r in zip(ours, rows, strict=True)
        )
        each = (6 if name.startswith("full-") else 4) / 1e9
        body = statistics.mean(r["throughPerSecond"] for r in rows) * rows[0]["linearWeights"]
        head = statistics.mean(r["headsPerSecond"] for r in rows) * rows[0]["headWeights"]
        used = each * (body + head) / peak
        lines.append(
            f"| {name} | {mean:.0f} | {ratios} |"
            f" {statistics.mean(r['recordsPerSecond'] for r in rows):.1f} |"
            f" {min(r['firstStep'] for r in rows):.1f} s | {max(r['peak'] for r in rows):.2f} GB |"
            f" {rows[-1]['losses'][-1]:.3f} | {used:.0%} |"
        )
    return lines


def losses(records: str, steps: int) -> list[str]:
    """Return how far packed losses are from padded ones, and bfloat16's from float32's."""
    half_race, race = Race(records, steps), Race(records, steps, dtype="float32")
    exact, packed = (run(race, name, 0)["losses"] for name in ("padded", "ours"))
    half, stock = (run(half_race, name, 0)["losses"] for name in ("ours", "hf-padded"))
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
    parser.add_argument("--against", type=Path, help="an older checkout, which runs as well")
    parser.add_argument("--only", choices=sorted({model for model, _, _ in RACES}))
    args = parser.parse_args()
    if args.smallest:
        print("\n".join(table(Race("intents", 3), LORA[:1], 1)))
        return 0
    trl = importlib.util.find_spec("trl") is not None
    lines = [f"\n## The trainer (`make bench-train`, {datetime.date.today()})\n"]
    for model, records, names in RACES:
        if args.only not in (None, model):
            continue
        race = Race(records, args.steps, model, against=args.against)
        if args.against:
            names = (names[0], *(OLD + name for name in names if "ours" in name), *names[1:])
        names = tuple(name for name in names if trl or "trl" not in name)
        lines += [f"{model}, {records}, {args.rounds} rounds of {args.steps} steps, the first two"]
        lines[-1] += " not timed\n"
        lines += [*table(race, names, args.rounds), ""]
    if args.only is None:
        lines += losses("aws-cli", args.steps)
    text = "\n".join(lines) + "\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
