"""Measure `data scan` and `data preview`, against another build.

    python benchmarks/scan_and_preview.py [--megabytes 54] [--against FOLDER]

FOLDER is a checkout of the other build. The builds alternate; the figures are the median wall time,
the CPU time, and the highest peak memory of one of their processes. The findings of a scan must be
the same. Of the generated files, `words` and `docs` are those of check_throughput.py without and
with JSON escapes and other scripts; `chat` is short turns of conversations; in `tickets` every
record has an e-mail address and a phone number. `preview` shows a record of examples/aws-cli.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import check_throughput
from smallest import ROOT, build_parser

ROUNDS, PREVIEW_ROUNDS = 3, 7
JOB = ROOT / "examples" / "aws-cli" / "cloudft.yaml"


class Run(NamedTuple):
    """A command's wall and CPU seconds, its peak memory in bytes, and what it printed."""

    wall: float
    cpu: float
    memory: int
    output: bytes


def write(path: Path, kind: str, megabytes: float) -> None:
    """Write a JSONL file of that size."""
    if kind in ("words", "docs"):
        check_throughput.write(path, kind, megabytes)
        return
    chance, size = random.Random(7), 0
    with path.open("w", encoding="utf-8") as file:
        while size < megabytes * 1_000_000:
            size += file.write(json.dumps(RECORDS[kind](chance), ensure_ascii=False) + "\n")


def chat(chance: random.Random) -> object:
    """Return a conversation of short turns."""
    turns = [
        {"role": role, "content": f"Turn the light in room {chance.randint(1, 99)} on, please."}
        for _ in range(chance.randint(2, 5))
        for role in ("user", "assistant")
    ]
    return {"messages": turns}


def ticket(chance: random.Random) -> object:
    """Return a ticket with an e-mail address, a phone number and other numbers."""
    number = chance.randint(1000, 9999)
    prompt = (
        f"On 2026-11-{chance.randint(1, 28):02} at 10:{chance.randint(10, 59)} order {number}-77"
        f" came to user{number}@mail.example.org instead of me. I paid {number / 100} EUR for"
        " version 2.0.1 and have looked it up at https://example.org/orders?page=2 three times"
        f" since. Please call me back at +49 30 90{number} or write to Musterstrasse 7. "
    )
    return {"prompt": prompt, "completion": "We are sorry for that, and have called you. " * 4}


RECORDS = {"chat": chat, "tickets": ticket}


def run(build: Path, arguments: Sequence[str]) -> Run:
    """Run a command of a build."""
    environ = os.environ | {"PYTHONPATH": str(build)}
    command = [sys.executable, "-m", "cloudft", *arguments]
    started = time.perf_counter()
    with tempfile.TemporaryFile() as output:
        child = subprocess.Popen(  # in a folder of no build, which would be imported before it
            command, env=environ, cwd="/", stdout=output, stderr=subprocess.DEVNULL
        )
        _, status, usage = os.wait4(child.pid, 0)  # its children included
        wall = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        assert child.returncode in (0, 3), arguments
        output.seek(0)
        cpu = usage.ru_utime + usage.ru_stime
        return Run(wall, cpu, usage.ru_maxrss * 1024, output.read())


def compare(name: str, builds: dict[str, Path], arguments: Sequence[str], rounds: int) -> None:
    """Print a row for each build."""
    runs: dict[str, list[Run]] = {build: [] for build in builds}
    for _ in range(rounds):
        for build, folder in builds.items():
            runs[build].append(run(folder, arguments))
    outputs = {one.output for of_build in runs.values() for one in of_build}
    assert len(outputs) == 1, "the builds print something else"
    first = None
    for build, of_build in runs.items():
        wall = statistics.median(one.wall for one in of_build)
        cpu = statistics.median(one.cpu for one in of_build)
        memory = max(one.memory for one in of_build)
        first = first or (wall, cpu, memory)
        ratios = ", ".join(
            f"{now / then:.2f}" for now, then in zip((wall, cpu, memory), first, strict=True)
        )
        print(f"| {name}, {build} | {wall:.2f} | {cpu:.2f} | {memory / 1e6:.0f} | {ratios} |")


def main() -> None:
    """Print a table."""
    parser = build_parser(__doc__)
    parser.add_argument("--megabytes", type=float, default=54)
    parser.add_argument("--against", type=Path)
    args = parser.parse_args()
    other = {args.against.name: args.against.resolve()} if args.against else {}
    builds = other | {"now": ROOT}
    print("| what | wall, s | CPU, s | peak memory, MB | relative to the first build |")
    print("| --- | --- | --- | --- | --- |", flush=True)
    megabytes = 0.05 if args.smallest else args.megabytes
    for kind in ("words", "docs", *RECORDS):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "train.jsonl"
            write(path, kind, megabytes)
            arguments = ["data", "scan", str(path), "--output", "json"]
            compare(f"scan {kind}", builds, arguments, 1 if args.smallest else ROUNDS)
    for folder in builds.values():
        run(folder, ["data", "preview", str(JOB)])  # converts the weights, keeps the tokenizer
    rounds = 1 if args.smallest else PREVIEW_ROUNDS
    compare("preview", builds, ["data", "preview", str(JOB)], rounds)


if __name__ == "__main__":
    main()
