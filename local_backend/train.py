"""Train one job from start to end: settings, data, model, steps, artifacts, the ending.

The supervisor runs this as `python -m local_backend.train JOB_DIR`.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path

import torch

from local_backend.data.encode import verify_digest
from local_backend.disk_full import disk_full_error, disk_full_reason
from local_backend.distributed.process_group import (
    ProcessGroup,
    init_process_group,
    is_lost_peer,
    lost_peer_error,
)
from local_backend.errors import StopRequested, TrainerError
from local_backend.job_dir import COMPLETED, FAILED, IN_PROGRESS, METRICS, STOPPED, JobDir
from local_backend.lean_imports import allow_lean_imports, import_modeling
from local_backend.process_exit import exit_now
from local_backend.progress import ProgressReporter
from local_backend.settings import read_settings
from local_backend.training import checkpoint
from local_backend.training.artifacts import write_artifacts
from local_backend.training.loss_curve import measures_at, read_curve, set_losses_at
from local_backend.training.prepare_run import TrainingRun, prepare_run
from local_backend.training.reinforcement.grpo import compare_rewards, open_grpo
from local_backend.training.teacher import complete_records
from local_backend.training.train_loop import evaluate_base_model, report_progress, train_loop

DISK_REMEDY = (
    "free some space there, then `cloudft resume` continues from the last checkpoint; or set"
    " CLOUDFT_HOME to another disk and submit again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job to its ending and return the exit status.

    This is the outermost frame: every exception becomes an ending.
    """
    job_dir = JobDir(Path((sys.argv[1:] if argv is None else argv)[0]))
    group = ProcessGroup()
    reporter = ProgressReporter(job_dir, group)

    def request_stop(_number: int, _frame: object) -> None:
        # Only noted: the training loop stops between two steps, with a checkpoint.
        reporter.is_stop_signaled = True

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, request_stop)
    status, message = FAILED, None
    try:
        reporter.process_group = group = init_process_group(job_dir)
        status = train(job_dir, reporter)
    except StopRequested:
        status = STOPPED
    except TrainerError as error:
        message = str(error)
    except Exception as error:
        message = failure_message(error, job_dir, group)
        traceback.print_exc()
    if not group.is_rank_zero:
        return end_worker(message)
    return write_ending(job_dir, reporter, status, message)


def failure_message(error: Exception, job_dir: JobDir, group: ProcessGroup) -> str:
    """Return the failure message for an error that was not raised on purpose."""
    disk_reason = disk_full_reason(error)
    if disk_reason:
        return str(disk_full_error("The job", job_dir.path, disk_reason, DISK_REMEDY))
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or job_dir.path}"
    if group.world_size > 1 and is_lost_peer(error):
        return str(lost_peer_error(error))
    return f"{type(error).__name__}: {error}"


def end_worker(message: str | None) -> int:
    """Return the exit status of a process with a rank above 0, which writes no ending itself."""
    if message:
        print(f"process {os.environ['RANK']} failed: {message}", flush=True)
    return 1 if message else 0


def write_ending(
    job_dir: JobDir, reporter: ProgressReporter, status: str, message: str | None
) -> int:
    """Write the job's ending and return the exit status.

    If the disk has no room for it, leave the ending to the supervisor.
    """
    if message:
        reporter.log(f"failed: {message}")
    reporter.close_phase(status)
    try:
        job_dir.write_ending(status, message)
    except OSError as error:
        reporter.log(f"can't write the ending: {error}")
        return 1
    reporter.log(f"ended: {status}")
    return 1 if status == FAILED else 0


def train(job_dir: JobDir, reporter: ProgressReporter) -> str:
    """Run the whole job and return the status that it ends with."""
    reporter.write_state()
    settings = read_settings(job_dir)
    reporter.set_phase("validationDetails", IN_PROGRESS)
    for file in (*settings.data.values(), *([settings.grader] if settings.grader else ())):
        verify_digest(file)
    reporter.set_phase("validationDetails", COMPLETED)
    import_modeling(settings)
    reporter.set_phase("dataProcessingDetails", IN_PROGRESS)
    settings = complete_records(job_dir, settings, reporter)
    run = prepare_run(job_dir, settings, reporter)
    reporter.set_phase("dataProcessingDetails", COMPLETED)
    reporter.set_phase("trainingDetails", IN_PROGRESS)
    with contextlib.closing(run.loss_curve), open_grpo(run):
        evaluate_base_model(run)
        train_loop(run)
        weights = select_tuned_weights(run)
        # From here on only rank 0 works; the others must not wait for it in a collective.
        run.process_group.close()
        if not run.process_group.is_rank_zero:
            return COMPLETED
        report_progress(run, None, None, "writing artifacts")
    write_artifacts(job_dir, run.loaded, weights, run.reporter.summary, settings)
    reporter.set_phase("trainingDetails", COMPLETED)
    # Last, because until the artifacts are written a crash needs the checkpoints.
    checkpoint.remove_checkpoints(run.checkpoints)
    return COMPLETED


def select_tuned_weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    """Return the weights of the lowest validation loss; without validation, the last ones.

    Rank 0 gets them whole and the other ranks get an empty dict. The weights are also set on the
    model, unless it is sharded.
    """
    run.loss_curve.sync()
    best, group, model = run.position.best_loss, run.process_group, run.loaded.model
    if best is None:
        if not group.joins_weight_gather:
            return {}
        return checkpoint.gather_trained_weights(model, keep=group.is_rank_zero)
    if not group.is_rank_zero:
        return {}
    tuned = run.objective.validation_result(best) | {"step": run.position.best_step}
    points = read_curve(run.checkpoints.parent / METRICS)
    tuned |= measures_at(points, run.position.best_step)
    if run.grpo is not None:
        tuned |= compare_rewards(run.checkpoints, run.position.best_step)
    if run.validation_sets:
        tuned["validationSets"] = set_losses_at(points, run.position.best_step)
    run.reporter.summary["tuned"] = tuned
    run.reporter.log(
        f"tuned model: {run.objective.describe_validation(best)}, after step"
        f" {run.position.best_step}"
    )
    if group.is_sharded:
        return checkpoint.read_best_weights(run.checkpoints)
    checkpoint.restore_best_weights(run.checkpoints, model)
    return checkpoint.gather_trained_weights(model)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    allow_lean_imports()
    exit_now(main())
