"""Compare the trainer on an NVIDIA GPU with TRL and Liger, and with Unsloth.

    python benchmarks/gpu [--model FOLDER] [--steps 30] [--rounds 3]

`make bench-gpu` runs it; without a GPU it says so and ends with 3. The peers are installed, at
pinned versions, into environments of their own in .venv-gpu. Contestants take turns, each in a
fresh process, on the same records in bfloat16 with the same adapters. The table is appended to
benchmarks/RESULTS.md. Written without a GPU at hand: it has never run to its end.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
RESULTS = HERE.parent / "RESULTS.md"
ENVIRONMENTS = ROOT / ".venv-gpu"
PEERS = {
    "trl": ("trl==1.16.0", "liger-kernel==0.8.5", "transformers==5.23.0", "peft==0.21.2"),
    "unsloth": ("unsloth==2026.10.9",),
}
"""What each peer's environment has. Unsloth chooses its own versions of transformers and trl."""
CONTESTANTS = {
    "ours": "",
    "ours-qlora": "",
    "trl-packing": "trl",
    "trl-packing-liger": "trl",
    "unsloth": "unsloth",
}
"""Contestants, and the environment that each runs in; ours runs in this one."""
NO_GPU = 3


def has_gpu() -> bool:
    """Return True if PyTorch finds an NVIDIA GPU."""
    import torch

    return torch.cuda.is_available()


def install(name: str) -> Path:
    """Return the python of a peer's environment, made once."""
    folder = ENVIRONMENTS / name
    python, made = folder / "bin" / "python", folder / ".made"
    if not made.exists() or made.read_text() != "\n".join(PEERS[name]):
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        subprocess.run([*pip, "datasets", *PEERS[name]], check=True)
        made.write_text("\n".join(PEERS[name]))
    return python


def run(name: str, model: Path, records: Path, steps: int) -> dict[str, Any]:
    """Return one contestant's figures, measured in a fresh process. Raise RuntimeError."""
    python = install(CONTESTANTS[name]) if CONTESTANTS[name] else Path(sys.executable)
    done = subprocess.run(
        [python, HERE / "contestant.py", name, model, records, str(steps)],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)},
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{name}: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def write_records(path: Path, count: int) -> Path:
    """Write the first records of the example as chat messages, and return the file."""
    sys.path.insert(0, str(HERE.parent / "train"))
    import contestant

    rows = contestant.shuffled_records("aws-cli", 7, count)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def table(results: dict[str, list[dict[str, Any]]], failures: dict[str, str]) -> list[str]:
    """Return the rows: speed, our speed over theirs by round, peak memory, last loss."""
    lines = [
        "| trainer | tok/s | ours to it, by round | first step | peak | loss |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rounds in results.items():
        speed = statistics.median(figures["tokensPerSecond"] for figures in rounds)
        ratios = ", ".join(
            f"{mine['tokensPerSecond'] / figures['tokensPerSecond']:.2f}"
            for mine, figures in zip(results["ours"], rounds, strict=False)
        )
        lines.append(
            f"| {name} | {speed:.0f} | {ratios} |"
            f" {statistics.median(figures['firstStep'] for figures in rounds):.1f} s |"
            f" {max(figures['peak'] for figures in rounds):.2f} GB |"
            f" {rounds[-1]['losses'][-1]:.3f} |"
        )
    return [*lines, *(f"| {name} | failed: {why} | | | | |" for name, why in failures.items())]


def main() -> int:
    """Run every contestant and append the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, help="a model folder (default: smollm2-135m)")
    parser.add_argument("--steps", type=int, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", choices=list(CONTESTANTS), default=list(CONTESTANTS))
    args = parser.parse_args()
    if not has_gpu():
        print("benchmarks/gpu needs an NVIDIA GPU, and PyTorch finds none here.", file=sys.stderr)
        return NO_GPU
    sys.path[:0] = [str(ROOT), str(HERE.parent / "train")]
    import contestant
    import torch

    from local_backend.models.weights import locate_weights

    model = args.model or Path(locate_weights("smollm2-135m", contestant.WEIGHTS))
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in ("ours", *args.only)}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as folder:
        records = write_records(Path(folder) / "records.jsonl", args.steps * 8)
        for turn in range(args.rounds):
            for name in results:
                if name in failures:
                    continue
                try:
                    results[name].append(run(name, model, records, args.steps))
                except (RuntimeError, subprocess.CalledProcessError) as error:
                    failures[name] = str(error)
                print(turn, name, failures.get(name, "done"), file=sys.stderr)
    measured = {name: rounds for name, rounds in results.items() if rounds}
    if "ours" not in measured:
        print(f"nothing to compare with: {failures['ours']}", file=sys.stderr)
        return 1
    title = f"\n## On a GPU (`make bench-gpu`, {datetime.date.today()})\n"
    machine = (
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, {model.name}, 8 records\n"
    )
    text = "\n".join([title, machine, *table(measured, failures)]) + "\n"
    print(text)
    with RESULTS.open("a") as file:
        file.write(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
