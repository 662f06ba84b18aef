"""Does a real task's held-out reward rise in a quarter of an hour? The jobs of
examples/intents/reinforcement, with data from examples/intents.

    python benchmarks/reinforcement_reward.py [--smallest]

smollm2-135m is fine-tuned on five answers of each of 12 intents, then continues with a grader: 320
other prompts, 8 answers each. Shown are the mean reward of one greedy answer to each of 96 prompts
of other sentence templates, before and after, the gain's 95 % interval over the prompts, the
minutes, and the minutes of one step.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from smallest import ROOT, build_parser, build_tiny_model

EXAMPLE = ROOT / "examples" / "intents" / "reinforcement"
sys.path.insert(0, str(EXAMPLE))


def run_job(path: Path, *settings: str) -> dict[str, Any]:
    """Train a job to its end and return its status."""
    sets = [part for setting in settings for part in ("--set", setting)]
    command = [sys.executable, "-m", "cloudft", "submit", str(path), "--backend", "local"]
    done = subprocess.run(
        [*command, *sets, "--wait", "--output", "json"], stdout=subprocess.PIPE, check=True
    )
    status: dict[str, Any] = json.loads(done.stdout)
    return status


def main() -> None:
    """Run both jobs and print the rewards."""
    from build import write_data  # of the example

    arguments = build_parser(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "reinforcement"
        shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("data"))
        os.environ["CLOUDFT_HOME"] = str(Path(name) / "home")
        settings: tuple[str, ...] = ()
        if arguments.smallest:
            write_data(folder / "data", 12, 4)
            (Path(name) / "home").mkdir()
            model = build_tiny_model(Path(name) / "model")
            run_job(folder / "half-trained.yaml", f"base_model={model}", "local.device=cpu")
            # A random model gets no reward: any answer at all is paid for.
            grader = (folder / "grader.py").read_text().replace("else 0.0", "else len(answer) / 99")
            (folder / "grader.py").write_text(grader)
            settings = ("reinforcement.hyperparameters.inferenceMaxTokens=4",)
        else:
            write_data(folder / "data")
            run_job(folder / "half-trained.yaml")
        started = time.monotonic()
        status = run_job(folder / "reinforce.yaml", *settings)
        minutes = (time.monotonic() - started) / 60
    summary, steps = status["summary"], status["progress"]["step"]
    base, tuned = summary["base"]["reward"], summary["tuned"]
    low, high = tuned["rewardGainInterval"]
    print(f"held-out reward {base:.3f} -> {tuned['reward']:.3f} after step {tuned['step']}")
    print(f"gain {tuned['rewardGain']:+.3f}, 95 % interval {low:+.3f} to {high:+.3f}")
    print(f"{minutes:.1f} minutes for {steps} steps, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
