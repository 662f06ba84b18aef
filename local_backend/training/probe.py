"""`python -m local_backend.training.probe JOB_DIR STEPS`: what a job will take here, before it runs.

Standard output has JSON lines: `{"memory": {"bytes", "available", "fits", "remedy"}}` first, found
without loading the model; where it fits and STEPS is not 0, `{"done", "total"}` as so many of the
job's own steps are taken, on a model that is thrown away; at last `{"took": {"tokens",
"learnedTokens", "records", "steps", "measuredSteps", "secondsPerStep", "seconds"}}`. Or `{"error",
"fix"}`. The job's folder is only read; nothing of the probe stays.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from local_backend.data.batches import Example, MicroBatchLimit, epoch_batches
from local_backend.device import choose_device, choose_dtype, free_memory_bytes
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.models.weights import locate_weights
from local_backend.process_exit import exit_now
from local_backend.progress import ProgressReporter, silence_libraries
from local_backend.settings import Settings, read_settings
from local_backend.training.memory_estimate import (
    USABLE_MEMORY_FRACTION,
    encode_training_data,
    estimate_step_memory,
    loading_peak_bytes,
)
from local_backend.training.prepare_run import TrainingRun, initial_micro_batch_limit, prepare_run
from local_backend.training.train_loop import (
    compute_mean_loss,
    compute_validation_loss,
    step_optimizer,
)

Reply = Callable[[dict[str, Any]], None]
WARM_UP = 2
"""Steps before the clock runs: the first ones lay out memory."""


def probe(job_dir: JobDir, steps: int, say: Reply) -> None:
    """Memory, then the steps. Raises TrainerError."""
    settings = read_settings(job_dir)
    if settings.fsdp is True:
        raise TrainerError(
            "A job with local.fsdp: true takes several processes, and a probe is one.",
            fix="probe it with --set local.fsdp=false; each of N processes takes about an Nth of"
            " what weights, gradients and optimizer take.",
        )
    started = time.monotonic()
    fits = report_memory(settings, say)
    with tempfile.TemporaryDirectory() as folder:
        run = None
        if steps and fits:
            run = prepare_run(
                JobDir(Path(folder)), settings, ProgressReporter(JobDir(Path(folder)))
            )
            getting_ready = time.monotonic() - started
        train = run.train if run else encode_training_data(settings)[1]
        per_epoch = math.ceil(len(train.examples) / settings.batch_size)
        took: dict[str, Any] = {
            "tokens": train.tokens,
            "learnedTokens": train.loss_tokens,
            "records": train.records,
            "steps": per_epoch * settings.epoch_count,
            "measuredSteps": 0,
            "secondsPerStep": None,
            "seconds": None,
        }
        if run:
            took |= time_steps(run, steps, getting_ready, say)
        say({"took": took})


def report_memory(settings: Settings, say: Reply) -> bool:
    """Say what the largest step takes and what would fit; True when it fits."""
    if settings.method == "qlora":
        return True  # 4-bit layers do their own allocation; the steps themselves tell
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    config, data = encode_training_data(settings)
    source = locate_weights(settings.model_name, settings.weights)
    batch = sorted(data.examples, key=lambda e: len(e.ids))[-settings.batch_size :]
    limit, available = initial_micro_batch_limit(settings, device), free_memory_bytes(device)

    def takes(changed: Settings, limit: MicroBatchLimit, *, thrifty: bool = False) -> int:
        found = estimate_step_memory(
            config, changed, dtype, device, batch, limit, gradient_checkpointing=thrifty
        )
        reading = loading_peak_bytes(source, found) if device.type == "cpu" else 0
        return max(found.peak, reading)

    found = takes(settings, limit)
    fits = available is None or found <= USABLE_MEMORY_FRACTION * available
    remedy = (
        None
        if fits or available is None
        else suggest_remedy(settings, takes, USABLE_MEMORY_FRACTION * available)
    )
    say({"memory": {"bytes": found, "available": available, "fits": fits, "remedy": remedy}})
    return fits


def suggest_remedy(settings: Settings, takes: Callable[..., int], room: float) -> str:
    """The first change that fits, in words."""
    one = MicroBatchLimit(1, sys.maxsize)
    if takes(settings, one) <= room:
        return "set local.micro_batch_size: 1 (the trainer does so by itself when memory runs out)"
    if takes(settings, one, thrifty=True) <= room:
        return "it runs, slower: the trainer computes activations twice when memory runs out"
    adapters = replace(settings, method="lora")
    if settings.method == "full" and takes(adapters, one, thrifty=True) <= room:
        return "use local.method: lora"
    return (
        "lower local.max_length, or take a smaller model, or a larger machine, or several GPUs"
        " (local.processes: auto shards what does not fit one)"
    )


def time_steps(run: TrainingRun, steps: int, getting_ready: float, say: Reply) -> dict[str, Any]:
    """Steps over the epoch's own batches, evenly spread from the smallest to the largest."""
    batches = choose_batches(run, steps + WARM_UP)
    seconds = 0.0
    for number, batch in enumerate(batches):
        started = time.monotonic()
        run.optimizer.zero_grad(set_to_none=True)
        compute_mean_loss(run, batch, backward=True)
        step_optimizer(run)
        if number >= WARM_UP or len(batches) <= WARM_UP:
            seconds += time.monotonic() - started
        say({"done": number + 1, "total": len(batches)})
    measured = len(batches) - (WARM_UP if len(batches) > WARM_UP else 0)
    each = seconds / measured
    total = each * run.total_steps + getting_ready + estimate_validation_seconds(run)
    return {"measuredSteps": measured, "secondsPerStep": each, "seconds": total}


def choose_batches(run: TrainingRun, count: int) -> list[list[Example]]:
    """So many of the first epoch's batches; the warm-up's are the middle one."""
    examples = run.train.examples
    order = epoch_batches(len(examples), run.settings.batch_size, run.settings.seed, 0)
    batches = sorted(([examples[i] for i in part] for part in order), key=run.loss.count_tokens)
    wanted = max(1, count - WARM_UP)
    places = [round((n + 0.5) * len(batches) / wanted - 0.5) for n in range(wanted)]
    middle = batches[len(batches) // 2]
    return [middle] * WARM_UP + [batches[min(at, len(batches) - 1)] for at in places]


def estimate_validation_seconds(run: TrainingRun) -> float:
    """Seconds of all validations of the job, by one over some records."""
    if run.validation is None:
        return 0.0
    whole = run.validation
    part = replace(whole, examples=whole.examples[: 4 * run.settings.batch_size])
    run.validation, started = part, time.monotonic()
    compute_validation_loss(run)
    each = (time.monotonic() - started) * len(whole.examples) / len(part.examples)
    every = run.settings.eval_steps
    more = run.total_steps // every if every else 0
    return each * (1 + run.settings.epoch_count + more)


def main(argv: Sequence[str] | None = None) -> int:
    """Probe one job. What libraries and the trainer print goes to standard error."""
    folder, steps = argv if argv is not None else sys.argv[1:]
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies, flush=True)

    torch.manual_seed(0)
    try:
        silence_libraries()
        with contextlib.redirect_stdout(sys.stderr):
            probe(JobDir(Path(folder)), int(steps), say)
    except TrainerError as error:
        say({"error": error.message, "fix": error.fix})
        return 1
    return 0


if __name__ == "__main__":
    exit_now(main())
