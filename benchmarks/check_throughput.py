"""Measure how fast data is checked and staged, against bare orjson and Hugging Face datasets.

Each row is a process of its own, on one core or two: the best of two runs, and its peak memory. The
files are generated: `words` is plain ASCII, `docs` is JSON-escaped documentation with line breaks,
quotes and other scripts; all records differ.

    python benchmarks/check_throughput.py [MEGABYTES]    (default 200; the goal is stated for 1000)
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from smallest import ROOT, build_parser

DOCS = ROOT / "examples" / "aws-api-docs" / "data" / "train.jsonl"
TRIES = 2
BARE = "bare orjson.loads per line"
ROWS = {
    BARE: ("bare", 1),
    "check": ("check", 1),
    "check, two cores": ("check", 2),
    "check and SHA-256 of the file": ("check:sha256", 1),
    "check and SHA-256, two cores": ("check:sha256", 2),
    "stage as prompt-completion": ("stage:prompt-completion", 1),
    "stage as converse, 10 % held out": ("split:converse", 1),
    "json.loads per line": ("stdlib", 1),
    "datasets.load_dataset and iteration": ("datasets", 1),
}


def write(path: Path, kind: str, megabytes: float) -> None:
    """Write a prompt/completion file of that size."""
    chance = random.Random(7)
    letters = "etaoinshrdlucmfwyp"
    words = ["".join(chance.choices(letters, k=chance.randint(2, 9))) for _ in range(5000)]
    texts = [json.loads(line)["text"] for line in DOCS.read_text().splitlines()]
    size = 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1_000_000:
            prompt = " ".join(chance.choices(words, k=chance.randint(20, 180)))
            completion = " ".join(chance.choices(words, k=chance.randint(5, 60)))
            if kind == "docs":
                prompt = f'{prompt[:200]}: "{chance.choice(texts)}"\n\u2014 \u00e0 r\u00e9sumer'
                completion = f"{completion[:60]}\n{chance.choice(texts)[:150]}"
            size += file.write(
                json.dumps({"prompt": prompt, "completion": completion}, ensure_ascii=False) + "\n"
            )


def work(what: str, path: Path) -> int:
    """Run one measured operation; return the number of records it read."""
    name, _, target = what.partition(":")
    if name == "bare":
        import orjson

        with path.open("rb") as file:
            return sum(1 for line in file if orjson.loads(line))
    if name == "stdlib":
        with path.open("rb") as file:
            return sum(1 for line in file if json.loads(line))
    if name == "datasets":
        from datasets import load_dataset

        with tempfile.TemporaryDirectory() as cache:
            data = load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
            return sum(1 for _ in data)
    return ours(name, target, path)


def ours(name: str, target: str, path: Path) -> int:
    """Run a check or a staging of cloudft; return the number of records."""
    from cloudft.data.checks.check import check_data
    from cloudft.data.sources.line_blocks import ByteCounter, StreamDigest
    from cloudft.data.staging.stage import stage_data
    from cloudft.spec.model import DataSpec

    data = DataSpec(train=(str(path),), validation=0.1 if name == "split" else None)
    if name == "check":
        digest = StreamDigest if target else ByteCounter
        examined = check_data(data, format="converse", base_dir=path.parent, digest=digest)
        assert examined.volumes is not None, examined.findings
        return examined.volumes["train"].records
    with tempfile.TemporaryDirectory(dir=path.parent) as root:
        staged = stage_data(
            data,
            customization_type="FINE_TUNING",
            format=target,
            seed=7,
            base_dir=path.parent,
            root=Path(root),
        )
        return sum(file.records for file in staged.manifest.files.values())


def measure(what: str, cores: int, path: Path, tries: int) -> tuple[float, int]:
    """Return the best time in seconds, and the highest peak memory in bytes."""
    best, peak = float("inf"), 0
    for _ in range(tries):
        command = [sys.executable, __file__, "--work", what, str(cores), str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, memory = done.stdout.split()[-2:]
        best, peak = min(best, float(seconds)), max(peak, int(memory))
    return best, peak


def child(what: str, cores: str, path: str) -> None:
    """Run as one measured process."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
    # Imports and first calls are not measured.
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "train.jsonl"
        with Path(path).open("rb") as file:
            first.write_bytes(b"".join(file.readlines(100_000)))
        work(what, first)
    started = time.perf_counter()
    assert work(what, Path(path)) > 0
    seconds = time.perf_counter() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def main() -> None:
    """Print a Markdown table for each kind of file."""
    parser = build_parser(__doc__)
    parser.add_argument("megabytes", type=float, nargs="?", default=200)
    args = parser.parse_args()
    megabytes, tries = (0.1, 1) if args.smallest else (args.megabytes, TRIES)
    for kind in ("words", "docs"):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.jsonl"
            write(path, kind, megabytes)
            size = path.stat().st_size
            print(
                f"\n{kind}, {size / 1e6:.0f} MB\n\n"
                "| operation | MB/s | relative to the bare loop | peak memory |"
            )
            print("| --- | --- | --- | --- |")
            bare = 0.0
            for name, (what, cores) in ROWS.items():
                try:
                    seconds, peak = measure(what, cores, path, tries)
                except subprocess.CalledProcessError as error:
                    print(f"| {name} | not run: {error.stderr.strip().splitlines()[-1][:60]} | | |")
                    continue
                bare = bare or seconds
                speed = size / 1e6 / seconds
                print(f"| {name} | {speed:.0f} | {bare / seconds:.2f} | {peak / 1e6:.0f} MB |")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        child(*sys.argv[2:])
    else:
        main()
