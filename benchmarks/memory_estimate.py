"""Compare the memory estimate of a job with what its steps take.

Run as `python benchmarks/memory_estimate.py`. smollm2-135m in bfloat16 over
the records of an example. Each case runs in a process of its own; the measured peak is that of the
steps, without loading the weights.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent / "train")]
CASES = (
    ("lora", 8, "aws-cli"),
    ("lora", 16, "aws-cli"),
    ("lora", 32, "aws-cli"),
    ("lora", 8, "intents"),
    ("full", 8, "aws-cli"),
)
STEPS = 10


def measured(method: str, batch: int, name: str) -> dict[str, Any]:
    """One case, in this process."""
    import contestant
    import torch

    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.memory_estimate import StepEstimator
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    rows = contestant.records(name, 0, STEPS * batch)
    folder = Path(tempfile.mkdtemp())
    contestant.write_job(folder, rows, method, "bfloat16", batch=batch)
    settings = read_settings(JobDir(folder))
    run = prepare_run(JobDir(folder), settings, ProgressReporter(JobDir(folder)))
    parts = [run.train.examples[at : at + batch] for at in range(0, len(rows), batch)]
    for part in parts:
        run.optimizer.zero_grad(set_to_none=True)
        compute_mean_loss(run, part, backward=True)
        step_optimizer(run)
        if part is parts[1]:
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    taken = contestant.peak_memory()
    largest = max(parts, key=run.loss.count_tokens)
    config = run.loaded.model.config
    del run
    estimator = StepEstimator(config, settings, torch.bfloat16, torch.device("cpu"))
    estimate = estimator.estimate(largest, _whole(batch))
    return {"estimated": estimate.peak / 1e9, "measured": taken}


def _whole(batch: int) -> Any:
    from local_backend.data.batches import MicroBatchLimit

    return MicroBatchLimit(batch, 2048)


def main() -> int:
    """Every case, as a table."""
    if len(sys.argv) == 4:
        replies = sys.stdout
        sys.stdout = sys.stderr
        found = measured(sys.argv[1], int(sys.argv[2]), sys.argv[3])
        print(json.dumps(found), file=replies)
        return 0
    print("| step | estimated | measured | |\n| --- | --- | --- | --- |")
    for method, batch, name in CASES:
        command = [sys.executable, __file__, method, str(batch), name]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        off = found["measured"] / found["estimated"] - 1
        print(
            f"| {method}, {name}, {batch} records at once | {found['estimated']:.2f} GB |"
            f" {found['measured']:.2f} GB | {off:+.0%} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
