"""The trainer, told as a story: settings, data, model, steps, artifacts, the ending.

Run by the supervisor as `python -m local_backend.train JOB_DIR`.
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

from local_backend.data.batches import verify_digest
from local_backend.disk_full import disk_full_error, disk_full_reason
from local_backend.distributed.process_group import (
    ProcessGroup,
    init_process_group,
    is_lost_peer,
    lost_peer_error,
)
from local_backend.errors import StopRequested, TrainerError
from local_backend.job_dir import COMPLETED, FAILED, IN_PROGRESS, STOPPED, JobDir
from local_backend.process_exit import exit_now
from local_backend.progress import ProgressReporter
from local_backend.settings import read_settings
from local_backend.training import checkpoint
from local_backend.training.artifacts import write_artifacts
from local_backend.training.loss_curve import perplexity
from local_backend.training.prepare_run import TrainingRun, prepare_run
from local_backend.training.train_loop import evaluate_base_model, report_progress, train_loop

DISK_REMEDY = (
    "free some space there, then `cloudft resume` goes on from the last checkpoint; or set"
    " CLOUDFT_HOME to another disk and submit again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job to its ending. The outermost frame: whatever happens becomes an ending."""
    job_dir = JobDir(Path((sys.argv[1:] if argv is None else argv)[0]))
    team = ProcessGroup()
    report = ProgressReporter(job_dir, team)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(report, "is_stop_signaled", True))
    status, message = FAILED, None
    try:
        report.process_group = team = init_process_group(job_dir)
        status = train(job_dir, report)
    except StopRequested:
        status = STOPPED
    except TrainerError as error:
        message = str(error)
    except Exception as error:
        message = failure_message(error, job_dir, team)
        traceback.print_exc()
    if not team.is_rank_zero:
        return end_worker(message)
    return write_ending(job_dir, report, status, message)


def failure_message(error: Exception, job_dir: JobDir, team: ProcessGroup) -> str:
    """Return the failure message for an error that nobody raised on purpose."""
    words = disk_full_reason(error)
    if words:
        return str(disk_full_error("The job", job_dir.path, words, DISK_REMEDY))
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or job_dir.path}"
    if team.world_size > 1 and is_lost_peer(error):
        return str(lost_peer_error(error))
    return f"{type(error).__name__}: {error}"


def end_worker(message: str | None) -> int:
    """The end of a process that does not write: the first one tells how the job ended."""
    if message:
        print(f"process {os.environ['RANK']} failed: {message}", flush=True)
    return 1 if message else 0


def write_ending(
    job_dir: JobDir, report: ProgressReporter, status: str, message: str | None
) -> int:
    """Write the ending; without room for it on the disk, leave it to the supervisor."""
    if message:
        report.log(f"failed: {message}")
    report.close_phase(status)
    try:
        job_dir.write_ending(status, message)
    except OSError as error:
        report.log(f"the ending could not be written: {error}")
        return 1
    report.log(f"ended: {status}")
    return 1 if status == FAILED else 0


def train(job_dir: JobDir, report: ProgressReporter) -> str:
    """The whole job; returns the status that it ends with."""
    report.write_state()
    settings = read_settings(job_dir)
    report.set_phase("validationDetails", IN_PROGRESS)
    for file in settings.data.values():
        verify_digest(file)
    report.set_phase("validationDetails", COMPLETED)
    report.set_phase("dataProcessingDetails", IN_PROGRESS)
    run = prepare_run(job_dir, settings, report)
    report.set_phase("dataProcessingDetails", COMPLETED)
    report.set_phase("trainingDetails", IN_PROGRESS)
    with contextlib.closing(run.loss_curve):
        evaluate_base_model(run)
        train_loop(run)
        weights = select_tuned_weights(run)
        run.process_group.close()
        if not run.process_group.is_rank_zero:
            return COMPLETED
        report_progress(run, None, None, "writing artifacts")
    write_artifacts(job_dir, run.loaded, weights, run.reporter.summary, settings)
    report.set_phase("trainingDetails", COMPLETED)
    checkpoint.remove_checkpoints(run.checkpoints)
    return COMPLETED


def select_tuned_weights(run: TrainingRun) -> dict[str, torch.Tensor]:
    """The weights of the lowest validation loss, where there was validation; else the last.

    Whole, for the process that writes; the others get none. The model has them too, unless it is
    sharded.
    """
    run.loss_curve.sync()
    best, team, model = run.position.best_loss, run.process_group, run.loaded.model
    if best is None:
        return (
            checkpoint.gather_trained_weights(model, keep=team.is_rank_zero)
            if team.joins_weight_gather
            else {}
        )
    if not team.is_rank_zero:
        return {}
    run.reporter.summary["tuned"] = {
        "validationLoss": best,
        "perplexity": perplexity(best),
        "step": run.position.best_step,
    }
    run.reporter.log(
        f"tuned model: validation loss {best:.4f}, after step {run.position.best_step}"
    )
    if team.is_sharded:
        return checkpoint.read_best_weights(run.checkpoints)
    checkpoint.restore_best_weights(run.checkpoints, model)
    return checkpoint.gather_trained_weights(model)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    exit_now(main())
