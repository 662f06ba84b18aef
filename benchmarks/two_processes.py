"""Compare one trainer process with two on one job, a thread each, and measure a checkpoint.

    python benchmarks/two_processes.py [memory]

smollm2-135m, LoRA in bfloat16, four records of examples/aws-cli per process and step. The figure is
the share of a process's own speed that is left when two share each batch. With the argument
`memory`, measure instead the memory of each of two processes, with the whole or a sharded model.
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

from smallest import ROOT, build_parser

sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "train")]
BATCH_PER_PROCESS, STEPS, WARM_UP, ROUNDS = 4, 12, 2, 3


def tokens_per_second(processes: int, steps: int, batch_per_process: int) -> float:
    """Return the speed of all processes together, without the warm-up steps."""
    import contestant

    rows = contestant.records("aws-cli", 0, batch_per_process * processes * steps)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        batch = batch_per_process * processes
        contestant.write_job(folder, rows, "lora", "bfloat16", batch=batch, processes=processes)
        (folder / "data" / "manifest.json").write_text("{}")
        environ = os.environ | {"OMP_NUM_THREADS": "1", "GOMP_SPINCOUNT": "1000"}
        command = [sys.executable, "-m", "local_backend", name]
        subprocess.run(command, check=True, env=environ, stdout=subprocess.DEVNULL)
        points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return statistics.mean(point["tokensPerSecond"] for point in points[WARM_UP:])


def checkpoint_seconds() -> tuple[float, float]:
    """Return the seconds and the megabytes of a LoRA checkpoint."""
    import contestant

    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import save_checkpoint, train_step

    with tempfile.TemporaryDirectory() as name:
        folder = JobDir(name)
        rows = contestant.records("aws-cli", 0, BATCH_PER_PROCESS)
        contestant.write_job(folder.path, rows, "lora", "bfloat16", batch=BATCH_PER_PROCESS)
        run = prepare_run(folder, read_settings(folder), ProgressReporter(folder))
        train_step(run)
        started = time.perf_counter()
        save_checkpoint(run)
        took = time.perf_counter() - started
        size = sum(p.stat().st_size for p in run.checkpoints.rglob("*") if p.is_file())
    return took, size / 1e6


def peak_memory(*, fsdp: bool) -> list[float]:
    """Return the peak memory in GB of each of two processes in full training in float32."""
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
        peaks = [0.0, 0.0]
        while child.poll() is None:
            for number, pid in enumerate([pids["pid"], *pids["others"]]):
                peaks[number] = max(peaks[number], resident_gb(pid))
            time.sleep(0.05)
        assert child.returncode == 0
    return peaks


def resident_gb(pid: int) -> float:
    """Return the peak memory of a process in GB; 0 when it has exited."""
    try:
        words = Path(f"/proc/{pid}/status").read_text().split()
        return int(words[words.index("VmHWM:") + 1]) * 1024 / 1e9
    except (OSError, ValueError):
        return 0.0


def print_memory() -> int:
    """Print what sharding saves."""
    print("| the model | first process | second |\n| --- | --- | --- |")
    for name, fsdp in (("whole", False), ("sharded", True)):
        first, second = peak_memory(fsdp=fsdp)
        print(f"| {name} | {first:.2f} GB | {second:.2f} GB |")
    return 0


def main() -> int:
    """Print the table."""
    parser = build_parser(__doc__)
    parser.add_argument("what", nargs="?", choices=["speed", "memory"], default="speed")
    args = parser.parse_args()
    if args.what == "memory":
        return print_memory()
    steps, rounds, batch = STEPS, ROUNDS, BATCH_PER_PROCESS
    if args.smallest:
        steps, rounds, batch = WARM_UP + 1, 1, 1
    speeds: dict[int, list[float]] = {1: [], 2: []}
    for _ in range(rounds):
        for processes, measured in speeds.items():
            measured.append(tokens_per_second(processes, steps, batch))
    shares_of_linear = [two / (2 * one) for one, two in zip(speeds[1], speeds[2], strict=True)]
    took, size = checkpoint_seconds()
    print("| processes | tok/s | of linear, by round |\n| --- | --- | --- |")
    print(f"| 1 | {statistics.mean(speeds[1]):.0f} | |")
    shares = ", ".join(f"{share:.2f}" for share in shares_of_linear)
    print(f"| 2 | {statistics.mean(speeds[2]):.0f} | {shares} |")
    print(f"\ncheckpoint: {took:.2f} s for {size:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
