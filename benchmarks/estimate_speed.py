"""Measure how long `cloudft estimate` takes for every backend, alternating with another build.

The job is a starter's, on a file of generated pairs; the local model is SmolLM2 135M, whose
tokenizer counts the tokens. Wall and CPU time are those of the whole command, its children among
them; the estimates of both builds must be equal in tokens.

    python benchmarks/estimate_speed.py [MEGABYTES] [--other CHECKOUT] [--rounds N]

CHECKOUT is another checkout of cloudft with the same environment; default: none, this build alone.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smallest import ROOT, build_parser

JOB = """
name: estimated
base_model: nova-lite
data: {train: train.jsonl}
local: {model: smollm2-135m}
"""
SMALLEST_MB, DEFAULT_MB = 0.2, 100.0
MOST_RECORDS = 19_000
"""Nova takes 20,000 records: longer data has longer ones."""
LEAST_CHARACTERS = 900


def write_pairs(path: Path, megabytes: float) -> None:
    """Write pairs of plain words, each about as long as the next."""
    chance = random.Random(7)
    words = ["".join(chance.choices("etaoinshrdlucmfwyp", k=n % 8 + 2)) for n in range(5000)]
    size = megabytes * 1_000_000
    records = max(10, min(MOST_RECORDS, int(size / LEAST_CHARACTERS)))
    count = max(20, int(size / records / 6.6))
    with path.open("w", encoding="utf-8") as file:
        for _ in range(records):
            lengths = (count * 4 // 5, count // 5)
            prompt, answer = (" ".join(chance.choices(words, k=length)) for length in lengths)
            file.write(json.dumps({"prompt": prompt, "completion": answer}) + "\n")


def estimate(checkout: Path, folder: Path) -> tuple[float, float, list[int]]:
    """Return wall and CPU time in seconds, and the tokens of each backend."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "cloudft", "estimate", "--output", "json"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(checkout)},
        capture_output=True,
        text=True,
        check=True,
    )
    wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, [row["trainTokens"] for row in json.loads(done.stdout)]


def main() -> None:
    """Alternate between the builds and print the figures."""
    options = parse_arguments()
    builds = {"this build": ROOT} | ({"other": options.other} if options.other else {})
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pairs(folder / "train.jsonl", options.megabytes)
        (folder / "cloudft.yaml").write_text(JOB)
        runs: dict[str, list[tuple[float, float]]] = {build: [] for build in builds}
        tokens = set()
        estimate(ROOT, folder)  # the first run prepares the tokenizer
        for _ in range(options.rounds):
            for build, checkout in builds.items():
                wall, cpu, counted = estimate(checkout, folder)
                runs[build].append((wall, cpu))
                tokens.add(tuple(counted))
                print(f"{build}: {wall:.1f} s wall, {cpu:.1f} s CPU", file=sys.stderr)
    print(f"{options.megabytes:g} MB; tokens by backend: {sorted(tokens)}")
    medians = {
        build: [statistics.median(column) for column in zip(*times, strict=True)]
        for build, times in runs.items()
    }
    for build, (wall, cpu) in medians.items():
        print(f"{build}: median {wall:.2f} s wall, {cpu:.2f} s CPU")
    if options.other:
        pairs = zip(medians["this build"], medians["other"], strict=True)
        print("ratio: {:.2f} wall, {:.2f} CPU".format(*(new / old for new, old in pairs)))


def parse_arguments() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = build_parser(__doc__)
    parser.add_argument("megabytes", nargs="?", type=float, default=DEFAULT_MB)
    parser.add_argument("--other", type=Path, help="another checkout, to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    if options.smallest:
        options.megabytes, options.rounds = SMALLEST_MB, 1
    return options


if __name__ == "__main__":
    main()
