"""The main job from end to end: train a real model on a real task, and see whether it helped.

Submits examples/intents through the command line, runs the same 180 held-out requests through the
tuned model and its base (none of their templates was trained on), and prints both accuracies.
`make demo` runs this; a second run finds the finished job and does not train again.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
JOB_FILE = HERE / "intents" / "cloudft.yaml"
TEST = HERE / "intents" / "data" / "test.jsonl"
Z95 = 1.96


def cloudft(*arguments: str) -> Any:
    """Run one command, its progress on this terminal; returns its JSON."""
    print(f"$ cloudft {' '.join(arguments)}", file=sys.stderr, flush=True)
    command = [sys.executable, "-m", "cloudft", *arguments, "--output", "json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def wilson(right: int, n: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share (Wilson 1927)."""
    share, z2 = right / n, Z95**2
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return middle - half, middle + half


def result(name: str, right: int, n: int) -> str:
    """Return one line of the result."""
    low, high = wilson(right, n)
    return f"  {name:<34}{right / n:6.1%}  ({right} of {n}; 95 % interval {low:.1%} to {high:.1%})"


def named(text: str, labels: set[str]) -> str | None:
    """Return the one label that an answer names, or None: a lenient reading for the base."""
    found = {label for label in labels if label in text}
    return found.pop() if len(found) == 1 else None


def main() -> None:
    """Train, ask, count."""
    started = time.monotonic()
    job = cloudft("submit", str(JOB_FILE), "--backend", "local", "--wait")
    answers = cloudft(
        "generate", job["id"], "--base", "--file", str(TEST), "--max-new-tokens", "24"
    )
    cloudft("metrics", job["id"], "--plot", "demo-loss.png")
    n, labels = len(answers), {a["reference"] for a in answers}
    right = {
        variant: sum(a[variant]["text"].strip() == a["reference"] for a in answers)
        for variant in ("base", "tuned")
    }
    lenient = sum(named(a["base"]["text"], labels) == a["reference"] for a in answers)
    common = Counter(a["reference"] for a in answers).most_common(1)[0][1]
    print(f"\n{job['baseModel']}, {job['manifest']['files']['train']['records']} training records:")
    print(f"accuracy on {n} held-out requests, {len(labels)} intents")
    print(result("always the commonest intent", common, n))
    print(result("base model", right["base"], n))
    print(result("base model, intent named anywhere", lenient, n))
    print(result("tuned model", right["tuned"], n))
    print(f"loss curve: demo-loss.png; job: {job['id']}; {time.monotonic() - started:.0f} s")
    if wilson(right["tuned"], n)[0] <= wilson(lenient, n)[1]:
        sys.exit("the tuned model is not clearly better than the base")


if __name__ == "__main__":
    main()
