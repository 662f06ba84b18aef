"""Measure how long a job takes to start: from `cloudft submit` to its first step.

    python benchmarks/first_step.py [--other CHECKOUT] [--rounds N] [--commands]

The job is the starter's (`cloudft init`), with SmolLM2 135M, whose weights are converted before.
Each round submits it again and ends it after its first step, with this build and with CHECKOUT,
another checkout of cloudft that has its own .venv, one after the other. `first batch` is when the
trainer begins to compute: it validates the base model before the first step. CPU time is that of
all processes up to the first step. The losses of both builds must be equal.

--commands also measures whole commands that train several short jobs: `advise`, and the learning
curve of `evaluate`.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from smallest import ROOT, build_parser, build_tiny_model

JOB_FILE = "cloudft.yaml"
POLL_S = 0.005
SHORT = ("--set", "local.hyperparameters.epochCount=1", "--set", "evaluate.max_new_tokens=4")
TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Start:
    """Seconds from the start of the command to each event, the CPU time, and the first loss."""

    first_batch: float
    first_step: float
    submitted: float
    cpu: float
    loss: float


class Bench:
    """A folder with the starter's job and a home, and the builds that run in it."""

    def __init__(self, folder: Path, builds: Mapping[str, Path], model: Path | None) -> None:
        self.folder, self.builds = folder, builds
        self.home = folder / "home"
        self.job = folder / "job"
        self.model = () if model is None else ("--set", f"local.model={model}")
        self.run("this build", "init", str(self.job), cwd=folder)

    def command(self, build: str, *words: str) -> list[str]:
        """Return the command line of a build."""
        python = self.builds[build]
        return [str(python), "-m", "cloudft", *words]

    def environ(self) -> dict[str, str]:
        """Return the environment of the commands."""
        return os.environ | {"CLOUDFT_HOME": str(self.home)}

    def run(self, build: str, *words: str, cwd: Path | None = None) -> float:
        """Run a command to its end; return the seconds that it took."""
        started = time.perf_counter()
        subprocess.run(
            self.command(build, *words),
            cwd=cwd or self.job,
            env=self.environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=True,
        )
        return time.perf_counter() - started

    def clear(self) -> None:
        """Remove the jobs and what was made for them; keep the converted weights."""
        for name in ("jobs", "staged", "answers", "bases", "tokens"):
            shutil.rmtree(self.home / name, ignore_errors=True)

    def measure_start(self, build: str) -> Start:
        """Submit the job; end it after its first step."""
        self.clear()
        before, started = os.times(), time.perf_counter()
        command = subprocess.Popen(
            self.command(build, "submit", *self.model),
            cwd=self.job,
            env=self.environ(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        first_batch = submitted = 0.0
        while (point := self._first_point()) is None:
            now = time.perf_counter() - started
            if not submitted and command.poll() is not None:
                submitted = now
            if not first_batch and self._is_computing():
                first_batch = now
            time.sleep(POLL_S)
        first_step = time.perf_counter() - started
        command.wait()
        pids = json.loads(self._file("trainer.json").read_bytes())
        cpu = cpu_seconds(pids["pid"])
        for pid in (pids["supervisor"], pids["pid"]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        after = os.times()
        cpu += after.children_user + after.children_system
        cpu -= before.children_user + before.children_system
        return Start(first_batch or first_step, first_step, submitted, cpu, point["loss"])

    def _file(self, name: str) -> Path:
        return next(iter((self.home / "jobs").glob(f"*/{name}")), self.home / "none")

    def _first_point(self) -> dict[str, float] | None:
        with contextlib.suppress(FileNotFoundError):
            line, end, _ = self._file("metrics.jsonl").read_bytes().partition(b"\n")
            if end:
                point: dict[str, float] = json.loads(line)
                return point
        return None

    def _is_computing(self) -> bool:
        with contextlib.suppress(FileNotFoundError, ValueError):
            return bool(json.loads(self._file("state.json").read_bytes())["progress"])
        return False

    def measure_commands(self, build: str) -> dict[str, float]:
        """Return the seconds of `advise` and of a learning curve; the job itself is trained."""
        self.clear()
        options = (*SHORT, *self.model)
        advise = self.run(build, "advise", "--limit", "8", *options)
        job = next((self.home / "jobs").iterdir()).name
        curve = self.run(build, "evaluate", job, "--quick", "--limit", "8", "--learning-curve")
        return {"advise": advise, "learning curve": curve}


def cpu_seconds(pid: int) -> float:
    """Return the CPU time of a process and of its children that have ended."""
    with contextlib.suppress(OSError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return sum(map(int, fields[11:15])) / TICKS
    return 0.0


def print_row(name: str, values: Mapping[str, Sequence[float]]) -> None:
    """Print the median of each build, and the ratio of the first to the last."""
    medians = [statistics.median(of_build) for of_build in values.values()]
    ratio = f"{medians[0] / medians[-1]:.2f}" if len(medians) > 1 else ""
    print(f"| {name} | {' | '.join(f'{value:.2f}' for value in medians)} | {ratio} |")


def main() -> None:
    """Print one Markdown row for each measure: this build, the other one, the ratio."""
    parser = build_parser(__doc__)
    parser.add_argument("--other", type=Path, help="another checkout with its own .venv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--commands", action="store_true", help="measure whole commands too")
    options = parser.parse_args()
    builds = {"this build": Path(sys.executable)}
    if options.other is not None:
        builds["other"] = options.other.resolve() / ".venv" / "bin" / "python"
    rounds = 1 if options.smallest else options.rounds
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        model = build_tiny_model(root / "model") if options.smallest else None
        bench = Bench(root, builds, model)
        if model is None:  # the weights are converted, the tokenizer is kept
            bench.measure_start("this build")
        starts: dict[str, list[Start]] = {name: [] for name in builds}
        for _ in range(rounds):
            for name in builds:
                starts[name].append(bench.measure_start(name))
        assert len({one.loss for each in starts.values() for one in each}) == 1, "equal losses"
        print(f"| seconds | {' | '.join(builds)} | ratio |\n| --- |{' --- |' * (len(builds) + 1)}")
        for field in ("submitted", "first_batch", "first_step", "cpu"):
            values = {name: [getattr(s, field) for s in each] for name, each in starts.items()}
            print_row(field.replace("_", " "), values)
        if options.commands:
            taken = {name: [bench.measure_commands(name)] for name in builds}
            for command in ("advise", "learning curve"):
                print_row(command, {n: [one[command] for one in each] for n, each in taken.items()})


if __name__ == "__main__":
    os.chdir(ROOT)
    main()
