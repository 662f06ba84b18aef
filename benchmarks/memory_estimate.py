"""Compare the memory that is predicted before a job with the peak of its training steps.

    python benchmarks/memory_estimate.py

smollm2-135m in bfloat16 with the records of an example. Each case is a process of its own; the
measured peak does not include loading the weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from smallest import ROOT, build_parser

sys.path[:0] = [str(ROOT), str(Path(__file__).parent / "train")]
CASES = (
    ("lora", 8, "aws-cli"),
    ("lora", 16, "aws-cli"),
    ("lora", 32, "aws-cli"),
    ("lora", 8, "intents"),
    ("full", 8, "aws-cli"),
)
SMALLEST_CASES = (("lora", 1, "intents"),)
STEPS = 10


def run_case(method: str, batch: int, name: str, steps: int) -> dict[str, float]:
    """Return the predicted and the measured memory of one case in GB, in this process."""
    import contestant
    import torch

    from local_backend.data.batches import MicroBatchLimit
    from local_backend.job_dir import JobDir
    from local_backend.progress import ProgressReporter
    from local_backend.settings import read_settings
    from local_backend.training.memory_estimate import StepEstimator
    from local_backend.training.prepare_run import prepare_run
    from local_backend.training.train_loop import compute_mean_loss, step_optimizer

    rows = contestant.records(name, 0, steps * batch)
    folder = Path(tempfile.mkdtemp())
    contestant.write_job(folder, rows, method, "bfloat16", batch=batch)
    settings = read_settings(JobDir(folder))
    run = prepare_run(JobDir(folder), settings, ProgressReporter(JobDir(folder)))
    batches = [run.train.examples[i : i + batch] for i in range(0, len(rows), batch)]
    for examples in batches:
        run.optimizer.zero_grad(set_to_none=True)
        compute_mean_loss(run, examples, backward=True)
        step_optimizer(run)
        if examples is batches[1]:
            # Reset the peak: the first steps compile kernels and allocate the optimizer.
            Path("/proc/self/clear_refs").write_text("5")
    measured = contestant.peak_memory()
    largest = max(batches, key=run.loss.count_tokens)
    config = run.loaded.model.config
    del run
    # A limit that one batch never reaches: the batch is not split.
    limit = MicroBatchLimit(batch, 2048)
    estimator = StepEstimator(config, settings, torch.bfloat16, torch.device("cpu"))
    estimate = estimator.estimate(largest, limit)
    return {"predicted": estimate.peak / 1e9, "measured": measured}


def main() -> int:
    """Print every case as a row of a table."""
    parser = build_parser(__doc__)
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        method, batch, name, steps = args.case
        # The trainer prints; only the figures belong on stdout.
        output, sys.stdout = sys.stdout, sys.stderr
        print(json.dumps(run_case(method, int(batch), name, int(steps))), file=output)
        return 0
    cases, steps = (SMALLEST_CASES, 2) if args.smallest else (CASES, STEPS)
    print("| step | predicted | measured | error |\n| --- | --- | --- | --- |")
    for method, batch, name in cases:
        case = [method, str(batch), name, str(steps)]
        command = [sys.executable, __file__, "--case", *case]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        figures = json.loads(done.stdout.splitlines()[-1])
        error = figures["measured"] / figures["predicted"] - 1
        print(
            f"| {method}, {name}, {batch} records per batch | {figures['predicted']:.2f} GB |"
            f" {figures['measured']:.2f} GB | {error:+.0%} |",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
