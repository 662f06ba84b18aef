"""Measure `check` on the same records as JSONL, as a JSON array, and as objects one after another.

Each row is a process of its own on one core: the best of some runs, which alternate between the
layouts, and its peak memory. The time is CPU time, so that other work on the machine counts less.
`words` and `docs` are prompts with completions (see check_throughput.py); `chats` are conversations
of five messages with an id, which are read one by one.

    python benchmarks/json_layouts.py [MEGABYTES] [--tries N]    (default 200, 3)
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import check_throughput
from smallest import build_parser

SEPARATORS = {
    "JSONL": ("", "\n", "\n", None),
    "array, a record a line": ("[\n", ",\n", "\n]\n", None),
    "array, one line": ("[", ", ", "]", None),
    "array, indented": ("[\n  ", ",\n  ", "\n]\n", 2),
    "objects, indented": ("", "\n", "\n", 2),
}
"""What is before, between and behind the records, and the spaces of an indentation."""


def iter_records(kind: str, folder: Path, megabytes: float) -> Iterator[dict[str, object]]:
    """Yield the records of that kind."""
    source = folder / "source.jsonl"
    check_throughput.write(source, "words" if kind == "words" else "docs", megabytes)
    with source.open(encoding="utf-8") as file:
        for number, line in enumerate(file):
            record = json.loads(line)
            yield record if kind != "chats" else _make_chat(number, record)


def _make_chat(number: int, record: dict[str, str]) -> dict[str, object]:
    question, answer = record["prompt"], record["completion"]
    turns = [
        ("system", "Answer briefly."),
        ("user", question[:200]),
        ("assistant", answer),
        ("user", question[200:] or "Why?"),
        ("assistant", answer[:80]),
    ]
    messages = [{"role": role, "content": content} for role, content in turns]
    return {"id": number, "messages": messages}


def write_layouts(kind: str, folder: Path, megabytes: float) -> None:
    """Write the records into a file for each layout, named by its number."""
    files = [(folder / f"{n}.json").open("w", encoding="utf-8") for n in range(len(SEPARATORS))]
    for number, record in enumerate(iter_records(kind, folder, megabytes)):
        for file, (before, between, _, indent) in zip(files, SEPARATORS.values(), strict=True):
            text = json.dumps(record, ensure_ascii=False, indent=indent)
            file.write((between if number else before) + text)
    for file, (_, _, behind, _) in zip(files, SEPARATORS.values(), strict=True):
        file.write(behind)
        file.close()


def child(path: Path) -> None:
    """Check one file in this process, and print the seconds and the peak memory."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
    check_throughput.ours("check", "", path.with_name("small.json"))
    started = time.process_time()
    check_throughput.ours("check", "", path)
    seconds = time.process_time() - started
    print(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)


def measure(path: Path) -> tuple[float, int]:
    """Return the seconds of a check, and its peak memory in bytes."""
    command = [sys.executable, __file__, "--work", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), int(memory)


def main() -> None:
    """Print a Markdown table for each kind of record."""
    parser = build_parser(__doc__)
    parser.add_argument("megabytes", type=float, nargs="?", default=200)
    parser.add_argument("--tries", type=int, default=3)
    args = parser.parse_args()
    megabytes, tries = (0.2, 1) if args.smallest else (args.megabytes, args.tries)
    for kind in ("words", "docs", "chats"):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            write_layouts(kind, folder, megabytes)
            (folder / "small.json").write_text('{"prompt": "a", "completion": "b"}\n' * 2)
            runs: list[list[tuple[float, int]]] = [[] for _ in SEPARATORS]
            for _ in range(tries):
                for number, measured in enumerate(runs):
                    measured.append(measure(folder / f"{number}.json"))
            print(f"\n{kind}\n\n| layout | MB | MB/s | relative to JSONL | peak memory |")
            print("| --- | --- | --- | --- | --- |")
            jsonl = 0.0
            for number, (layout, measured) in enumerate(zip(SEPARATORS, runs, strict=True)):
                size = (folder / f"{number}.json").stat().st_size / 1e6
                speed = size / min(seconds for seconds, _ in measured)
                jsonl = jsonl or speed
                peak = max(memory for _, memory in measured) / 1e6
                print(
                    f"| {layout} | {size:.0f} | {speed:.0f} | {speed / jsonl:.2f} | {peak:.0f} MB |"
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--work"]:
        child(Path(sys.argv[2]))
    else:
        main()
