"""One and two trainers on one job, a thread each: `python benchmarks/two_processes.py`.

smollm2-135m, LoRA in bfloat16, four records of examples/aws-cli a process and step. What is kept of
a process's own speed when it shares each batch with another, in turns; and what a checkpoint takes.
With the argument `memory`, instead: what each of two processes holds of a model, whole or sharded.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "train")]
EACH, STEPS, WARM_UP, ROUNDS = 4, 12, 2, 3


def tokens_per_second(processes: int) -> float:
    """Of a whole job's steps but the first, all processes together."""
    import contestant

    rows = contestant.records("aws-cli", 0, EACH * processes * STEPS)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batch = EACH * processes
        contestant.write_job(folder, rows, "lora", "bfloat16", batch=batch, processes=processes)
        (folder / "data" / "manifest.json").write_text("{}")
        environ = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
        command = [sys.executable, "-m", "local_backend", name]
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.mean(point["tokensPerSecond"] for point in points[WARM_UP:])


def checkpoint_seconds() -> tuple[float, float]:
    """What a checkpoint of a LoRA takes, and its megabytes."""
    import contestant

    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import save_checkpoint, train_step

    with tempfile.TemporaryDirectory() as name:
        folder = JobDir(name)
        rows = contestant.records("aws-cli", 0, EACH)
        contestant.write_job(folder.path, rows, "lora", "bfloat16", batch=EACH)
        run = prepare_run(folder, read_settings(folder), ProgressReporter(folder))
        train_step(run)
        begun = time.perf_counter()
        save_checkpoint(run)
        took = time.perf_counter() - begun
        size = sum(p.stat().st_size for p in run.checkpoints.rglob("*") if p.is_file())
    return took, size / 1e6


def most_memory(*, fsdp: bool) -> list[float]:
    """The most GB that each of two processes had while all weights were trained, in float32."""
    import contestant

    rows = contestant.records("aws-cli", 0, 4)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        contestant.write_job(folder, rows, "full", "float32", batch=4, processes=2, fsdp=fsdp)
        (folder / "data" / "manifest.json").write_text("{}")
        command = [sys.executable, "-m", "local_backend", name]
        environ = os.environ | {"OMP_NUM_THREADS": "1"}
        child = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
        while not (folder / "trainer.json").exists():
            time.sleep(0.05)
        pids = json.loads((folder / "trainer.json").read_text())
        most = [0.0, 0.0]
        while child.poll() is None:
            for number, pid in enumerate([pids["pid"], *pids["others"]]):
                most[number] = max(most[number], resident_gb(pid))
            time.sleep(0.05)
        assert child.returncode == 0
    return most


def resident_gb(pid: int) -> float:
    """The most memory that a process has had; 0 when it is gone."""
    try:
        words = Path(f"/proc/{pid}/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) * 1024 / 1e9
    except (OSError, ValueError):
        return 0.0


def memory() -> int:
    """What sharding saves."""
    print("| the model | first process | second |\n| --- | --- | --- |")
    for name, fsdp in (("whole", False), ("sharded", True)):
        first, second = most_memory(fsdp=fsdp)
        print(f"| {name} | {first:.2f} GB | {second:.2f} GB |")
    return 0


def main() -> int:
    """The table."""
    if sys.argv[1:] == ["memory"]:
        return memory()
    found: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(ROUNDS):
        for processes, speeds in found.items():
            speeds.append(tokens_per_second(processes))
    kept = [two / (2 * one) for one, two in zip(found[1], found[2], strict=True)]
    took, size = checkpoint_seconds()
    print("| processes | tok/s | of linear, by round |\n| --- | --- | --- |")
    print(f"| 1 | {statistics.mean(found[1]):.0f} | |")
    shares = ", ".join(f"{share:.2f}" for share in kept)
    print(f"| 2 | {statistics.mean(found[2]):.0f} | {shares} |")
    print(f"\ncheckpoint: {took:.2f} s for {size:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
