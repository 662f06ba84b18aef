"""The training loop: batches, loss, optimizer steps, validation, checkpoints, early stopping."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import TYPE_CHECKING

import numpy as np
import torch

from local_backend.data.batches import (
    MicroBatchLimit,
    epoch_order,
    split_into_micro_batches,
    take_batch,
)
from local_backend.data.examples import Example
from local_backend.device import empty_device_cache, is_out_of_memory
from local_backend.errors import StopRequested, TrainerError
from local_backend.models.load_model import eval_mode, trainable_parameters
from local_backend.settings import Settings
from local_backend.training import checkpoint
from local_backend.training.loss_curve import TRAIN, VALIDATION, perplexity
from local_backend.training.prepare_run import TrainingRun

if TYPE_CHECKING:
    from local_backend.training.reinforcement.grpo import GrpoTrainer

MAX_CHECKPOINT_TIME_SHARE = 0.05
"""At most this share of the time is spent on writing checkpoints."""
MAX_GRAD_NORM = 1.0


def evaluate_base_model(run: TrainingRun) -> None:
    """Measure the validation loss before the first step, which is the base model's."""
    if run.validation is None:
        return
    sets: dict[str, LossSums] = {}
    if run.position.base_loss is None:
        report_progress(run, None, None, "validating the base model")
        sets = sum_set_losses(run)
        sums = sum_validation_losses(run, sets)
        run.position.base_loss = sums.mean
        run.position.base_measures = run.objective.describe_sums(sums.measured)
        if run.grpo is not None:
            run.grpo.keep_rewards(run.checkpoints, 0)
    base = run.position.base_loss
    result = run.objective.validation_result(base) | run.position.base_measures
    run.reporter.log(f"base model: {run.objective.describe_validation(base)}")
    if sets:  # a resumed run has only the loss of all: a checkpoint keeps no more
        result["validationSets"] = {name: of_set.mean for name, of_set in sets.items()}
        run.reporter.log(f"base model: {describe_set_losses(run, sets)}")
    run.reporter.summary["base"] = result


def train_loop(run: TrainingRun) -> None:
    """Train from the current position to the last step, or until early stopping.

    Raise StopRequested after writing a checkpoint if a stop was requested. The position alone
    determines what comes next, so a validation that was due when the run was interrupted is done
    when it continues.
    """
    run.last_checkpoint_at = time.monotonic()
    try:
        while True:
            run.reporter.raise_if_stopped()
            if is_validation_due(run):
                validate(run)
                if should_stop_early(run):
                    break
            elif run.grpo is not None and run.grpo.has_ended(run):
                validate_last(run)
                break
            elif run.position.step < run.total_steps:
                train_step(run)
            else:
                break
            save_checkpoint_if_due(run)
    except StopRequested:
        save_checkpoint(run)
        raise


def validate_last(run: TrainingRun) -> None:
    """Validate the weights of a run that ends between two validations."""
    if run.validation is not None and run.position.step != run.position.validated_step:
        validate(run)


def is_validation_due(run: TrainingRun) -> bool:
    """Return True after each epoch and each `eval_steps`, once for each step."""
    step, interval = run.position.step, run.settings.eval_steps
    if run.validation is None or step == run.position.validated_step:
        return False
    return step % run.steps_per_epoch == 0 or bool(interval and step % interval == 0)


def next_batch(run: TrainingRun) -> tuple[int, list[Example]]:
    """Return the epoch that the next step belongs to, and the step's examples."""
    epoch, at = divmod(run.position.step, run.steps_per_epoch)
    # A resumed run may begin inside an epoch: its order is computed again from seed and epoch.
    if run.epoch_order is None or at == 0:
        run.epoch_order = epoch_order(len(run.train.examples), run.settings.seed, epoch)
    batch = take_batch(run.epoch_order, run.settings.batch_size, at)
    return epoch, [run.train.examples[i] for i in batch]


def train_step(run: TrainingRun) -> None:
    """Take one step over the next batch and append its point to the loss curve.

    Raise TrainerError if the loss is not finite.
    """
    started = time.monotonic()
    step = run.position.step
    epoch, examples = next_batch(run)
    rate = learning_rate_at(run.settings, step, run.total_steps)
    for group in run.optimizer.param_groups:
        group["lr"] = rate
    if run.grpo is None:
        loss, measured = update_weights(run, examples)
        values = curve_values(run, loss, measured)
        tokens = sum(len(e.ids) for e in examples)
    else:
        loss, values, tokens = grpo_step(run, run.grpo, examples)
        run.grpo.record_step(run, values)
    seconds = time.monotonic() - started
    run.position.step += 1
    run.position.tokens += tokens
    run.position.seconds += seconds
    run.loss_curve.append(TRAIN, step, epoch, values, rate, tokens / seconds)
    report_progress(run, epoch, loss, "training")


def update_weights(run: TrainingRun, examples: Sequence[Example]) -> tuple[float, list[float]]:
    """Take one optimizer step over these examples.

    Return their mean loss before it, and the sums that the objective has measured. Raise
    TrainerError if the loss is not finite.
    """
    step = run.position.step

    def forward_and_backward() -> float:
        # Called again after memory ran out, so it must start from zero gradients each time.
        run.optimizer.zero_grad(set_to_none=True)
        # A seed for each step: a repeated step (after a crash, or with less memory) drops the same
        # units. The rank is in the high bits, so that ranks drop different ones.
        torch.manual_seed(run.settings.seed * 1_000_003 + step + (run.process_group.rank << 40))
        run.objective.take_sums()
        return compute_mean_loss(run, examples, backward=True)

    own_loss = retry_with_smaller_micro_batches(run, forward_and_backward)
    loss, *measured = run.process_group.all_reduce_sum(own_loss, *run.objective.take_sums())
    run.process_group.all_reduce_grads(trainable_parameters(run.loaded.model).values())
    # Checked before the weights change: a checkpoint of the step before is still good.
    check_finite(loss, step)
    step_optimizer(run)
    return loss, measured


def grpo_step(
    run: TrainingRun, grpo: GrpoTrainer, prompts: Sequence[Example]
) -> tuple[float, dict[str, float], int]:
    """Sample answers to the step's prompts and learn from their rewards.

    Return the loss, the point's values, and how many tokens went through the model.
    """
    batch = grpo.make_batch(run, run.position.step, prompts)
    loss, clipped = 0.0, 0.0
    # Without examples all answers to each prompt are equally good: there is no gradient.
    for iteration in range(grpo.settings.num_iterations if batch.examples else 0):
        batch.begin_update()
        loss += update_weights(run, batch.examples)[0] / grpo.settings.num_iterations
        clipped += float(batch.statistics().clipped) / grpo.settings.num_iterations
        if grpo.settings.beta > 0 and iteration == 0:  # of the weights that sampled the answers
            batch.values["kl"] = float(batch.statistics().kl) / batch.answer_tokens
    values = {"loss": loss, "perplexity": perplexity(batch.values["entropy"]), **batch.values}
    values["clipFraction"] = clipped / batch.answer_tokens
    return loss, values, batch.tokens


def check_finite(loss: float, step: int) -> None:
    """Raise TrainerError for a loss that is not finite."""
    if not math.isfinite(loss):
        raise TrainerError(
            f"The loss became {loss} at step {step}: training has diverged.",
            fix="lower the learningRate, or add warm-up steps.",
        )


def step_optimizer(run: TrainingRun) -> None:
    """Clip the gradients to MAX_GRAD_NORM and update the weights."""
    weights = trainable_parameters(run.loaded.model).values()
    torch.nn.utils.clip_grad_norm_(weights, MAX_GRAD_NORM)
    run.optimizer.step()


def learning_rate_at(settings: Settings, step: int, total: int) -> float:
    """Return the learning rate: linear warm-up over `learningRateWarmupSteps`, then linear decay.

    The first step has 1/warm-up of the rate and the last one is above zero, so every step trains.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    return settings.learning_rate * (total - step) / max(1, total - settings.warmup_steps)


def compute_mean_loss(run: TrainingRun, examples: Sequence[Example], *, backward: bool) -> float:
    """Return this rank's contribution to the batch's mean loss; the ranks sum to the mean.

    The mean is over the whole batch, however it is split into micro-batches and over ranks. With
    `backward`, gradients are accumulated too.
    """
    count = run.objective.count(examples)
    total = torch.zeros((), device=run.device)
    for part, weight in local_micro_batches(run, examples):
        loss = run.loss(part) * weight
        if backward:
            # Divided by the count of the whole batch, so that gradients of parts just add up.
            (loss * run.process_group.loss_scale / count).backward()
        total += loss.detach()
    return total.item() / count


def local_micro_batches(
    run: TrainingRun, examples: Sequence[Example]
) -> list[tuple[list[Example], int]]:
    """Return this rank's micro-batches, each with its weight: 1, or 0 for a placeholder.

    The ranks of a sharded model must call it equally often, because each call gathers weights from
    all of them. So ranks with less to do add placeholders of two tokens, which count 0.
    """

    def split(share: list[Example]) -> list[list[Example]]:
        return list(split_into_micro_batches(share, run.micro_batch_limit, run.loss.count_tokens))

    # Every rank knows the whole batch, so it can count the others' parts without communication.
    shares = run.process_group.split_batch(examples)
    parts = [(part, 1) for part in split(shares[run.process_group.rank])]
    if run.process_group.is_sharded:
        most = max(len(split(share)) for share in shares)
        placeholder = Example(examples[0].ids[:2], np.array([False, True]))
        parts += [([placeholder], 0)] * (most - len(parts))
    return parts


def retry_with_smaller_micro_batches(run: TrainingRun, work: Callable[[], float]) -> float:
    """Return the result of `work`. Halve the micro-batch limit each time memory runs out.

    Raise TrainerError when one sequence at a time is too much, and for a sharded model at once.
    """
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            # Only noted here and freed below: the traceback holds the activations of the failed
            # attempt until this block ends.
            smaller = _smaller_limit(run, error)
        run.micro_batch_limit = smaller
        run.position.micro = [smaller.sequences, smaller.tokens]
        run.reporter.log(
            f"out of memory: continuing with {smaller.sequences} sequences at a time;"
            f" the batch stays {run.settings.batch_size}"
        )
        gc.collect()
        empty_device_cache(run.device)


def _smaller_limit(run: TrainingRun, error: Exception) -> MicroBatchLimit:
    """Return the next limit to try after memory ran out with the current one.

    With one sequence at a time, turn on gradient checkpointing and keep the limit. Raise
    TrainerError if that is on already.
    """
    if (
        run.process_group.is_sharded
    ):  # the other ranks are inside the same step and can't restart it
        raise TrainerError(
            "Memory ran out in one of the processes of a sharded model.",
            fix=f"set local.micro_batch_size below {run.micro_batch_limit.sequences}, or lower"
            " local.max_length, and submit again.",
        ) from error
    smaller = run.micro_batch_limit.halved()
    if smaller is not None:
        return smaller
    if run.loss.enable_gradient_checkpointing():
        run.reporter.log(
            "out of memory: continuing with gradient checkpointing (activations computed twice)"
        )
        return run.micro_batch_limit
    raise TrainerError(
        "Memory ran out with one sequence at a time.",
        fix="lower local.max_length, use `method: lora`, take a smaller model, or shard"
        " it over several GPUs (local.processes: auto, local.fsdp: true).",
    ) from error


def validate(run: TrainingRun) -> None:
    """Append a point to the validation curve. Keep the weights if they are the best so far."""
    epoch = (run.position.step - 1) // run.steps_per_epoch
    report_progress(run, epoch, None, "validating")
    if run.grpo is not None:
        run.grpo.held_out.clear()
    sets = sum_set_losses(run)
    sums = sum_validation_losses(run, sets)
    loss = sums.mean
    position, stopping = run.position, run.settings.early_stopping
    values = curve_values(run, loss, sums.measured)
    run.loss_curve.append(VALIDATION, position.step - 1, epoch, values)
    run.reporter.log(f"step {position.step}: {run.objective.describe_validation(loss)}")
    for name, of_set in sets.items():
        named: dict[str, float | str] = {"validationSet": name}
        named |= curve_values(run, of_set.mean, of_set.measured)
        run.loss_curve.append(VALIDATION, position.step - 1, epoch, named)
    if sets:
        run.reporter.log(f"step {position.step}: {describe_set_losses(run, sets)}")
    threshold = stopping.threshold if stopping else 0.0
    position.validated_step = position.step
    # Patience counts gains below the threshold as none; the best weights count every gain.
    is_gain = position.best_loss is None or loss < position.best_loss - threshold
    position.bad_validations = 0 if is_gain else position.bad_validations + 1
    if position.best_loss is None or loss < position.best_loss:
        position.best_loss, position.best_step = loss, position.step
        if run.grpo is not None:
            run.grpo.keep_rewards(run.checkpoints, position.step)
        if run.process_group.joins_weight_gather:
            checkpoint.write_best_weights(
                run.checkpoints,
                run.loaded.model,
                position,
                writes=run.process_group.is_rank_zero,
            )


@dataclass(frozen=True)
class LossSums:
    """A loss summed over `count` terms, and what the objective has measured beside it."""

    total: float
    count: int
    measured: tuple[float, ...] = ()

    @property
    def mean(self) -> float:
        """Return the mean loss."""
        return self.total / self.count

    def __add__(self, other: LossSums) -> LossSums:
        """Return the sums over both."""
        measured = map(add, self.measured, other.measured)
        return LossSums(self.total + other.total, self.count + other.count, tuple(measured))


def sum_set_losses(run: TrainingRun) -> dict[str, LossSums]:
    """Return the loss on each of several validation sets; nothing where there is one."""
    return {name: sum_losses(run, data.examples) for name, data in run.validation_sets.items()}


def sum_validation_losses(run: TrainingRun, sets: Mapping[str, LossSums]) -> LossSums:
    """Return the loss on all of the validation data, without dropout.

    `sets` are those of its sets, so that nothing is computed twice.
    """
    assert run.validation is not None
    return reduce(add, sets.values()) if sets else sum_losses(run, run.validation.examples)


def describe_set_losses(run: TrainingRun, sets: Mapping[str, LossSums]) -> str:
    """Return the losses of the validation sets as one line of the log."""
    described = run.objective.describe_validation
    return ", ".join(f"{name}: {described(of_set.mean)}" for name, of_set in sets.items())


def curve_values(run: TrainingRun, loss: float, measured: Sequence[float]) -> dict[str, float]:
    """Return a point's values: the loss, and what the objective shows beside it."""
    metrics, measures = run.objective.metrics(loss), run.objective.describe_sums(measured)
    return {"loss": loss, **metrics, **measures}


def sum_losses(run: TrainingRun, examples: Sequence[Example]) -> LossSums:
    """Return the loss on these examples, without dropout; of prompts, minus their rewards."""
    if run.grpo is not None:
        sums = run.grpo.measure(run, examples)
        return LossSums(-sums[0], len(examples), sums)
    count = run.objective.count(examples)

    def measure() -> float:
        run.objective.take_sums()
        with eval_mode(run.loaded.model, sharded=run.process_group.is_sharded):
            total = 0.0
            for at in range(0, len(examples), run.settings.batch_size):
                if run.process_group.world_size == 1:  # several ranks stop between steps, together
                    run.reporter.raise_if_stopped()
                part = examples[at : at + run.settings.batch_size]
                weight = run.objective.count(part)
                total += compute_mean_loss(run, part, backward=False) * weight
            return total

    own = retry_with_smaller_micro_batches(run, measure)
    total, *measured = run.process_group.all_reduce_sum(own, *run.objective.take_sums())
    return LossSums(total, count, tuple(measured))


def should_stop_early(run: TrainingRun) -> bool:
    """Return True, and log it, if early stopping ends the run here."""
    stopping = run.settings.early_stopping
    if stopping is None or run.position.bad_validations < stopping.patience:
        return False
    run.reporter.log(
        f"early stopping after step {run.position.step}: {run.position.bad_validations} validations"
        f" without a gain of {stopping.threshold:g}"
    )
    run.reporter.summary["stoppedEarly"] = True
    return True


def report_progress(run: TrainingRun, epoch: int | None, loss: float | None, activity: str) -> None:
    """Write the progress that `watch` shows."""
    position = run.position
    speed = position.tokens / position.seconds if position.seconds else None
    step_seconds = position.seconds / position.step if position.step else None
    previous = run.reporter.progress
    if previous is not None:  # what this call does not know stays as it is shown
        epoch = previous["epoch"] if epoch is None else epoch
        loss = previous["loss"] if loss is None else loss
    run.reporter.progress = {
        "step": position.step,
        "totalSteps": run.total_steps,
        "epoch": epoch or 0,
        "loss": loss,
        "tokensPerSecond": speed,
        "secondsLeft": step_seconds * (run.total_steps - position.step) if step_seconds else None,
        "activity": activity,
    }
    if run.grpo is not None and run.grpo.history:
        run.reporter.progress["reward"] = run.grpo.history[-1]["reward"] or 0.0
    run.reporter.write_state()


def save_checkpoint_if_due(run: TrainingRun) -> None:
    """Write a checkpoint if that keeps within MAX_CHECKPOINT_TIME_SHARE of the time."""
    elapsed = time.monotonic() - run.last_checkpoint_at
    is_due = elapsed >= run.checkpoint_seconds / MAX_CHECKPOINT_TIME_SHARE
    # Clocks of ranks differ, and writing a sharded checkpoint needs them all: rank 0 decides.
    if run.process_group.broadcast_flag(is_due):
        save_checkpoint(run)


def save_checkpoint(run: TrainingRun) -> None:
    """Write a checkpoint of the current position; rank 0 writes it for all."""
    if not run.process_group.joins_weight_gather:
        return
    started = time.monotonic()
    # The curve is made durable first: a checkpoint names its length, and is damaged without it.
    run.position.metrics_bytes = run.loss_curve.sync()
    checkpoint.write_checkpoint(
        run.checkpoints,
        run.loaded.model,
        run.optimizer,
        run.position,
        writes=run.process_group.is_rank_zero,
    )
    run.last_checkpoint_at = time.monotonic()
    run.checkpoint_seconds = run.last_checkpoint_at - started
