"""Measure what a job will take on this machine: `python -m local_backend.training.probe JOB_DIR
STEPS`.

Standard output has JSON lines. First `{"memory": {"bytes", "available", "fits", "remedy"}}`,
estimated without loading the model. If the job fits and STEPS is not 0, then `{"done", "total"}`
for each of that many steps of the job, taken on a model that is discarded. Last `{"took":
{"tokens", "learnedTokens", "records", "steps", "measuredSteps", "secondsPerStep", "seconds"}}`. On
failure `{"error", "fix"}`. The job's folder is only read, and nothing of the probe is kept.
"""

from __future__ import annotations

import contextlib
import math
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypedDict

import torch

from local_backend.data.batches import MicroBatchLimit, epoch_order, take_batch
from local_backend.data.examples import EncodedData, Example, example_lengths, merge_data
from local_backend.device import choose_device, choose_dtype, free_memory_bytes
from local_backend.errors import TrainerError
from local_backend.job_dir import JobDir
from local_backend.libraries import silence_libraries
from local_backend.models.weights import locate_weights
from local_backend.process_exit import exit_now
from local_backend.progress import ProgressReporter
from local_backend.replies import Reply, ReplyWriter
from local_backend.settings import Settings, read_settings
from local_backend.training.memory_estimate import (
    USABLE_MEMORY_FRACTION,
    StepEstimator,
    encode_training_data,
    loading_peak_bytes,
)
from local_backend.training.objectives import find_objective
from local_backend.training.prepare_run import (
    TrainingRun,
    initial_micro_batch_limit,
    prepare_run,
)
from local_backend.training.reinforcement.grpo import open_grpo
from local_backend.training.reinforcement.memory import rollout_bytes
from local_backend.training.teacher import sample_answers
from local_backend.training.train_loop import (
    compute_mean_loss,
    grpo_step,
    step_optimizer,
    sum_losses,
)

WARM_UP = 2
"""Steps before the clock starts: the first ones allocate memory."""
COMPARED_BATCHES = 2_000
"""Batches whose sizes are compared, to choose those that are timed."""


class Timing(TypedDict):
    """How long the job takes. `seconds` are those of the whole job; None if no step was taken."""

    measuredSteps: int
    secondsPerStep: float | None
    seconds: float | None


def probe(job_dir: JobDir, steps: int, reply: Reply) -> None:
    """Write the memory estimate, then the timing. Raise TrainerError."""
    settings = read_settings(job_dir)
    if settings.fsdp is True:
        raise TrainerError(
            "A job with local.fsdp: true takes several processes, and a probe is one.",
            fix="probe it with --set local.fsdp=false; each of N processes takes about an Nth of"
            " what weights, gradients and optimizer take.",
        )
    with tempfile.TemporaryDirectory() as answered, tempfile.TemporaryDirectory() as folder:
        settings, teacher_seconds = sample_answers(Path(answered), settings)
        started = time.monotonic()
        fits = report_memory(settings, reply)
        timing: Timing = {"measuredSteps": 0, "secondsPerStep": None, "seconds": None}
        if steps and fits:
            # In a folder of its own: nothing of the probe may be left in the job's.
            scratch = JobDir(Path(folder))
            reporter = ProgressReporter(scratch)
            run = prepare_run(scratch, settings, reporter, with_reference=False)
            train = run.train
            with contextlib.closing(run.loss_curve):
                startup = time.monotonic() - started
                with open_grpo(run):
                    timing = time_steps(run, steps, startup, reply)
        else:
            train = encode_training_data(settings)[1]
        per_epoch = math.ceil(len(train.examples) / settings.batch_size)
        answers = answer_tokens(settings, train)
        counts = {
            "tokens": train.tokens + answers,
            "learnedTokens": train.loss_tokens + answers,
            "records": train.records,
            "steps": per_epoch * settings.epoch_count,
        }
        if timing["seconds"] is not None:
            timing["seconds"] += teacher_seconds
        reply({"took": {**counts, **timing, "teacherSeconds": teacher_seconds}})


def answer_tokens(settings: Settings, train: EncodedData) -> int:
    """Return the most tokens that a reinforcement job samples in an epoch; 0 for other jobs."""
    reinforcement = settings.reinforcement
    if reinforcement is None:
        return 0
    each = reinforcement.samples_per_prompt * reinforcement.max_new_tokens
    return len(train.examples) * each


def report_memory(settings: Settings, reply: Reply) -> bool:
    """Write what the largest step takes and what would fit. Return True if it fits."""
    if settings.method == "qlora":
        return True  # 4-bit layers allocate outside PyTorch; the steps themselves will show it
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype, device)
    config, data = encode_training_data(settings)
    source = locate_weights(settings.model_name, settings.weights)
    limit, available = initial_micro_batch_limit(settings, device), free_memory_bytes(device)
    objective = find_objective(settings.customization_type)
    batch = objective.largest_batch(data.examples, settings, limit)
    longest = int(example_lengths(data.examples).max())
    sampling = (
        rollout_bytes(config, settings, longest, dtype.itemsize) if settings.reinforcement else 0
    )
    estimator = StepEstimator(config, settings, dtype, device)

    def peak_bytes(
        method: str, limit: MicroBatchLimit, *, gradient_checkpointing: bool = False
    ) -> int:
        estimate = estimator.with_method(method).estimate(
            batch, limit, gradient_checkpointing=gradient_checkpointing
        )
        loading = loading_peak_bytes(source, estimate) if device.type == "cpu" else 0
        # Sampling and learning follow each other: the greater one counts.
        return max(estimate.peak, loading, estimate.persistent + sampling)

    needed = peak_bytes(settings.method, limit)
    if available is None:
        fits, remedy = True, None
    else:
        usable = USABLE_MEMORY_FRACTION * available
        fits = needed <= usable
        remedy = None if fits else suggest_remedy(settings, peak_bytes, usable)
    reply({"memory": {"bytes": needed, "available": available, "fits": fits, "remedy": remedy}})
    return fits


def suggest_remedy(settings: Settings, peak_bytes: Callable[..., int], usable: float) -> str:
    """Return the first change that fits, as a message."""
    one = MicroBatchLimit(1, sys.maxsize)
    if peak_bytes(settings.method, one) <= usable:
        return (
            "set local.micro_batch_size: 1 (the trainer does this by itself when memory runs out)"
        )
    if peak_bytes(settings.method, one, gradient_checkpointing=True) <= usable:
        return "it runs, slower: the trainer computes activations twice when memory runs out"
    is_full = settings.method == "full"
    if is_full and peak_bytes("lora", one, gradient_checkpointing=True) <= usable:
        return "use local.method: lora"
    return (
        "lower local.max_length, or take a smaller model, or a larger machine, or several GPUs"
        " (local.processes: auto shards what does not fit one)"
    )


def time_steps(run: TrainingRun, steps: int, startup_seconds: float, reply: Reply) -> Timing:
    """Return the timing of steps over the epoch's own batches, evenly spread by size."""
    batches = choose_batches(run, steps + WARM_UP)
    seconds = 0.0
    for number, batch in enumerate(batches):
        started = time.monotonic()
        if run.grpo is not None:
            grpo_step(run, run.grpo, batch)
        else:
            run.optimizer.zero_grad(set_to_none=True)
            compute_mean_loss(run, batch, backward=True)
            step_optimizer(run)
        if number >= WARM_UP or len(batches) <= WARM_UP:
            seconds += time.monotonic() - started
        reply({"done": number + 1, "total": len(batches)})
    measured = len(batches) - (WARM_UP if len(batches) > WARM_UP else 0)
    step_seconds = seconds / measured
    passes = estimate_validation_seconds(run) + estimate_reference_seconds(run)
    total = step_seconds * run.total_steps + startup_seconds + passes
    return {"measuredSteps": measured, "secondsPerStep": step_seconds, "seconds": total}


def choose_batches(run: TrainingRun, count: int) -> list[list[Example]]:
    """Return `count` batches of the first epoch, evenly spread by size; warm-up repeats the middle
    one.
    """
    examples, size = run.train.examples, run.settings.batch_size
    order = epoch_order(len(examples), run.settings.seed, 0)
    numbers = range(run.steps_per_epoch)
    if len(numbers) > COMPARED_BATCHES:  # their order is random, so some stand for all
        numbers = numbers[:: -(-len(numbers) // COMPARED_BATCHES)]

    def read(number: int) -> list[Example]:
        return [examples[i] for i in take_batch(order, size, number)]

    by_size = sorted(numbers, key=lambda number: run.loss.count_tokens(read(number)))
    timed = max(1, count - WARM_UP)
    # The middles of `timed` equal parts of the sorted batches.
    indices = [round((n + 0.5) * len(by_size) / timed - 0.5) for n in range(timed)]
    middle = read(by_size[len(by_size) // 2])
    return [middle] * WARM_UP + [read(by_size[min(at, len(by_size) - 1)]) for at in indices]


def estimate_reference_seconds(run: TrainingRun) -> float:
    """Return the seconds of the one pass over all data that some objectives begin with."""
    if not run.objective.needs_reference:
        return 0.0
    parts = [run.train, *([run.validation] if run.validation else [])]
    return _forward_seconds(run, merge_data(parts).examples)


def _forward_seconds(run: TrainingRun, examples: Sequence[Example]) -> float:
    """Return the seconds of a pass over these examples, extrapolated from some."""
    part = examples[: 4 * run.settings.batch_size]
    started = time.monotonic()
    sum_losses(run, part)
    return (time.monotonic() - started) * len(examples) / len(part)


def estimate_validation_seconds(run: TrainingRun) -> float:
    """Return the seconds that all validations of the job take, extrapolated from some records."""
    if run.validation is None:
        return 0.0
    seconds = _forward_seconds(run, run.validation.examples)
    interval = run.settings.eval_steps
    extra = run.total_steps // interval if interval else 0
    # The base model's, one after each epoch, and those of eval_steps.
    return seconds * (1 + run.settings.epoch_count + extra)


def main(argv: Sequence[str] | None = None) -> int:
    """Probe one job. Send the output of libraries and of the trainer to standard error."""
    folder, steps = argv if argv is not None else sys.argv[1:]
    with ReplyWriter() as reply:
        torch.manual_seed(0)
        silence_libraries()
        with contextlib.redirect_stdout(sys.stderr):
            probe(JobDir(Path(folder)), int(steps), reply)
    return reply.status


if __name__ == "__main__":
    exit_now(main())
