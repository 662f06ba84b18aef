"""The steps: batches, loss, weights, validation, checkpoints, until it is best to stop."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Sequence

import numpy as np
import torch

from local_backend.data.batches import Example, epoch_batches, split_into_micro_batches
from local_backend.device import empty_device_cache, is_out_of_memory
from local_backend.errors import StopRequested, TrainerError
from local_backend.models.load_model import eval_mode, trainable_parameters
from local_backend.settings import Settings
from local_backend.training import checkpoint
from local_backend.training.loss_curve import TRAIN, VALIDATION, perplexity
from local_backend.training.prepare_run import TrainingRun

MAX_CHECKPOINT_TIME_SHARE = 0.05
"""At most this share of the time goes into checkpoints."""
MAX_GRAD_NORM = 1.0


def evaluate_base_model(run: TrainingRun) -> None:
    """The validation loss before the first step: what the base model knows already."""
    if run.validation is None:
        return
    if run.position.base_loss is None:
        report_progress(run, None, None, "validating the base model")
        run.position.base_loss = compute_validation_loss(run)
    base = run.position.base_loss
    run.reporter.summary["base"] = {"validationLoss": base, "perplexity": perplexity(base)}
    run.reporter.log(f"base model: validation loss {base:.4f}")


def train_loop(run: TrainingRun) -> None:
    """Every step from the current position to the end, or until it is best to stop.

    A stop request ends it with a checkpoint. Where the loop stands follows from the position alone,
    so a validation that was due when the run was cut off is made up for when it goes on.
    """
    run.last_checkpoint_at = time.monotonic()
    try:
        while True:
            run.reporter.raise_if_stopped()
            if is_validation_due(run):
                validate(run)
                if should_stop_early(run):
                    break
            elif run.position.step < run.total_steps:
                train_step(run)
            else:
                break
            save_checkpoint_if_due(run)
    except StopRequested:
        save_checkpoint(run)
        raise


def is_validation_due(run: TrainingRun) -> bool:
    """True after each epoch and each `eval_steps`, once."""
    step, every = run.position.step, run.settings.eval_steps
    if run.validation is None or step == run.position.validated_step:
        return False
    return step % run.steps_per_epoch == 0 or bool(every and step % every == 0)


def next_batch(run: TrainingRun) -> tuple[int, list[Example]]:
    """The epoch that the next step belongs to, and the step's examples."""
    epoch, at = divmod(run.position.step, run.steps_per_epoch)
    if run.epoch_batches is None or at == 0:
        count = len(run.train.examples)
        run.epoch_batches = epoch_batches(count, run.settings.batch_size, run.settings.seed, epoch)
    return epoch, [run.train.examples[i] for i in run.epoch_batches[at]]


def train_step(run: TrainingRun) -> None:
    """One optimizer step over the next batch, and its point on the curve."""
    started = time.monotonic()
    step = run.position.step
    epoch, examples = next_batch(run)
    rate = learning_rate_at(run.settings, step, run.total_steps)
    for group in run.optimizer.param_groups:
        group["lr"] = rate

    def forward_and_backward() -> float:
        run.optimizer.zero_grad(set_to_none=True)
        # A seed a step: a repeated step (after a crash, or with less memory) drops the same units.
        torch.manual_seed(run.settings.seed * 1_000_003 + step + (run.process_group.rank << 40))
        return compute_mean_loss(run, examples, backward=True)

    [loss] = run.process_group.all_reduce_sum(
        retry_with_smaller_micro_batches(run, forward_and_backward)
    )
    run.process_group.all_reduce_grads(trainable_parameters(run.loaded.model).values())
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise TrainerError(
            f"The loss became {loss} at step {step}: training has run away.",
            fix="lower the learningRate, or add warm-up steps.",
        )
    step_optimizer(run)
    seconds = time.monotonic() - started
    tokens = sum(len(e.ids) for e in examples)
    run.position.step += 1
    run.position.tokens += tokens
    run.position.seconds += seconds
    run.loss_curve.append(TRAIN, step, epoch, loss, rate, tokens / seconds)
    report_progress(run, epoch, loss, "training")


def step_optimizer(run: TrainingRun) -> None:
    """Change the weights by the gradients that are there, cut to GRADIENT_NORM."""
    torch.nn.utils.clip_grad_norm_(trainable_parameters(run.loaded.model).values(), MAX_GRAD_NORM)
    run.optimizer.step()


def learning_rate_at(settings: Settings, step: int, total: int) -> float:
    """Linear warm-up over `learningRateWarmupSteps`, then linear decay towards zero.

    The first step already learns (1/warm-up of the rate), and the last one still does.
    """
    if step < settings.warmup_steps:
        return settings.learning_rate * (step + 1) / settings.warmup_steps
    return settings.learning_rate * (total - step) / max(1, total - settings.warmup_steps)


def compute_mean_loss(run: TrainingRun, examples: Sequence[Example], *, backward: bool) -> float:
    """The mean negative log-likelihood of the learned tokens of `examples`, in nats: of several
    processes' each its part.

    The mean is over the whole batch, however it is cut into micro batches and shares.
    """
    learned = sum(int(e.loss_mask.sum()) for e in examples)
    total = torch.zeros((), device=run.device)
    for part, counts in local_micro_batches(run, examples):
        loss = run.loss(part) * counts
        if backward:
            (loss * run.process_group.loss_scale / learned).backward()
        total += loss.detach()
    return total.item() / learned


def local_micro_batches(
    run: TrainingRun, examples: Sequence[Example]
) -> list[tuple[list[Example], int]]:
    """The micro batches of this process, each with what it counts: 1.

    The processes of a sharded model go through it at once and equally often, so those with less to
    do get two tokens more, which count 0.
    """

    def cut(share: list[Example]) -> list[list[Example]]:
        return list(split_into_micro_batches(share, run.micro_batch_limit, run.loss.count_tokens))

    shares = run.process_group.split_batch(examples)
    parts = [(part, 1) for part in cut(shares[run.process_group.rank])]
    if run.process_group.is_sharded:
        most = max(len(cut(share)) for share in shares)
        filling = Example(examples[0].ids[:2], np.array([False, True]))
        parts += [([filling], 0)] * (most - len(parts))
    return parts


def retry_with_smaller_micro_batches(run: TrainingRun, work: Callable[[], float]) -> float:
    """Do `work`; as long as memory runs out, halve what goes through the model at once."""
    while True:
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            smaller = run.micro_batch_limit.halved()
            if not is_out_of_memory(error):
                raise
            if (
                run.process_group.is_sharded
            ):  # the others are within the same step, and can't begin it anew
                raise TrainerError(
                    "Memory ran out in one of the processes of a sharded model.",
                    fix=f"set local.micro_batch_size below {run.micro_batch_limit.sequences}, or lower"
                    " local.max_length, and submit again.",
                ) from error
            if smaller is None and run.loss.enable_gradient_checkpointing():
                run.reporter.log("out of memory: going on with activations computed twice")
                smaller = run.micro_batch_limit
            if smaller is None:
                raise TrainerError(
                    "Memory ran out with one sequence at a time.",
                    fix="lower local.max_length, use `method: lora`, take a smaller model, or shard"
                    " it over several GPUs (local.processes: auto, local.fsdp: true).",
                ) from error
        run.micro_batch_limit = smaller
        run.position.micro = [smaller.sequences, smaller.tokens]
        run.reporter.log(
            f"out of memory: going on with {smaller.sequences} sequences at a time;"
            f" the batch stays {run.settings.batch_size}"
        )
        gc.collect()
        empty_device_cache(run.device)


def validate(run: TrainingRun) -> None:
    """A point on the validation curve; keeps the weights when they are the best so far."""
    epoch = (run.position.step - 1) // run.steps_per_epoch
    report_progress(run, epoch, None, "validating")
    loss = compute_validation_loss(run)
    position, stopping = run.position, run.settings.early_stopping
    run.loss_curve.append(VALIDATION, position.step - 1, epoch, loss)
    run.reporter.log(f"step {position.step}: validation loss {loss:.4f}")
    enough = stopping.threshold if stopping else 0.0
    position.validated_step = position.step
    better = position.best_loss is None or loss < position.best_loss - enough
    position.bad_validations = 0 if better else position.bad_validations + 1
    if position.best_loss is None or loss < position.best_loss:
        position.best_loss, position.best_step = loss, position.step
        if run.process_group.joins_weight_gather:
            checkpoint.write_best_weights(
                run.checkpoints, run.loaded.model, position, writes=run.process_group.is_rank_zero
            )


def compute_validation_loss(run: TrainingRun) -> float:
    """The loss on all of the validation data, with no dropout."""
    assert run.validation is not None
    examples = run.validation.examples

    def measure() -> float:
        with eval_mode(run.loaded.model, sharded=run.process_group.is_sharded):
            total = learned = 0.0
            for at in range(0, len(examples), run.settings.batch_size):
                if (
                    run.process_group.world_size == 1
                ):  # several processes stop between steps, all at once
                    run.reporter.raise_if_stopped()
                part = examples[at : at + run.settings.batch_size]
                weight = sum(int(e.loss_mask.sum()) for e in part)
                total += compute_mean_loss(run, part, backward=False) * weight
                learned += weight
            return total / learned

    [loss] = run.process_group.all_reduce_sum(retry_with_smaller_micro_batches(run, measure))
    return loss


def should_stop_early(run: TrainingRun) -> bool:
    """True when early stopping says so."""
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
    """The progress that `watch` shows."""
    position = run.position
    speed = position.tokens / position.seconds if position.seconds else None
    each = position.seconds / position.step if position.step else None
    previous = run.reporter.progress or {}
    run.reporter.progress = {
        "step": position.step,
        "totalSteps": run.total_steps,
        "epoch": epoch if epoch is not None else previous.get("epoch", 0),
        "loss": loss if loss is not None else previous.get("loss"),
        "tokensPerSecond": speed,
        "secondsLeft": each * (run.total_steps - position.step) if each else None,
        "activity": activity,
    }
    run.reporter.write_state()


def save_checkpoint_if_due(run: TrainingRun) -> None:
    """A checkpoint as often as it costs at most CHECKPOINT_SHARE of the time."""
    since = time.monotonic() - run.last_checkpoint_at
    if run.process_group.broadcast_flag(
        since >= run.checkpoint_seconds / MAX_CHECKPOINT_TIME_SHARE
    ):
        save_checkpoint(run)


def save_checkpoint(run: TrainingRun) -> None:
    """A checkpoint of where the loop stands; one process writes it for all."""
    if not run.process_group.joins_weight_gather:
        return
    started = time.monotonic()
    run.position.metrics_bytes = run.loss_curve.sync()
    leads, model = run.process_group.is_rank_zero, run.loaded.model
    checkpoint.write_checkpoint(run.checkpoints, model, run.optimizer, run.position, writes=leads)
    run.last_checkpoint_at = time.monotonic()
    run.checkpoint_seconds = run.last_checkpoint_at - started
