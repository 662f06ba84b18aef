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

from local_backend import checkpoint
from local_backend.artifacts import write_artifacts
from local_backend.batches import verify
from local_backend.curve import perplexity
from local_backend.disk import disk_full, is_full
from local_backend.errors import StopRequested, TrainerError
from local_backend.job_dir import COMPLETED, FAILED, IN_PROGRESS, STOPPED, JobDir
from local_backend.learn import learn, measure_base, publish
from local_backend.leaving import leave
from local_backend.parallel import Team, assemble, gone, is_gone
from local_backend.prepare import Run, prepare
from local_backend.report import Report
from local_backend.settings import read_settings

DISK_REMEDY = (
    "free some space there, then `cloudft resume` goes on from the last checkpoint; or set"
    " CLOUDFT_HOME to another disk and submit again."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one job to its ending. The outermost frame: whatever happens becomes an ending."""
    job_dir = JobDir(Path((sys.argv[1:] if argv is None else argv)[0]))
    team = Team()
    report = Report(job_dir, team)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(report, "asked_to_stop", True))
    status, message = FAILED, None
    try:
        report.team = team = assemble(job_dir)
        status = train(job_dir, report)
    except StopRequested:
        status = STOPPED
    except TrainerError as error:
        message = str(error)
    except Exception as error:
        message = reason(error, job_dir, team)
        traceback.print_exc()
    if not team.leads:
        return follow(message)
    return finish(job_dir, report, status, message)


def reason(error: Exception, job_dir: JobDir, team: Team) -> str:
    """Return the failure message for an error that nobody raised on purpose."""
    words = is_full(error)
    if words:
        return str(disk_full("The job", job_dir.path, words, DISK_REMEDY))
    if isinstance(error, OSError):
        return f"{error.strerror or error}: {error.filename or job_dir.path}"
    if team.size > 1 and is_gone(error):
        return str(gone(error))
    return f"{type(error).__name__}: {error}"


def follow(message: str | None) -> int:
    """The end of a process that does not write: the first one tells how the job ended."""
    if message:
        print(f"process {os.environ['RANK']} failed: {message}", flush=True)
    return 1 if message else 0


def finish(job_dir: JobDir, report: Report, status: str, message: str | None) -> int:
    """Write the ending; without room for it on the disk, leave it to the supervisor."""
    if message:
        report.log(f"failed: {message}")
    report.close(status)
    try:
        job_dir.end(status, message)
    except OSError as error:
        report.log(f"the ending could not be written: {error}")
        return 1
    report.log(f"ended: {status}")
    return 1 if status == FAILED else 0


def train(job_dir: JobDir, report: Report) -> str:
    """The whole job; returns the status that it ends with."""
    report.write()
    settings = read_settings(job_dir)
    report.phase("validationDetails", IN_PROGRESS)
    for file in settings.data.values():
        verify(file)
    report.phase("validationDetails", COMPLETED)
    report.phase("dataProcessingDetails", IN_PROGRESS)
    run = prepare(job_dir, settings, report)
    report.phase("dataProcessingDetails", COMPLETED)
    report.phase("trainingDetails", IN_PROGRESS)
    with contextlib.closing(run.curve):
        measure_base(run)
        learn(run)
        weights = tuned_weights(run)
        run.team.close()
        if not run.team.leads:
            return COMPLETED
        publish(run, None, None, "writing artifacts")
    write_artifacts(job_dir, run.loaded, weights, run.report.summary, settings)
    report.phase("trainingDetails", COMPLETED)
    checkpoint.remove_all(run.folder)
    return COMPLETED


def tuned_weights(run: Run) -> dict[str, torch.Tensor]:
    """The weights of the lowest validation loss, where there was validation; else the last.

    Whole, for the process that writes; the others get none. The model has them too, unless it is
    sharded.
    """
    run.curve.durable_bytes()
    best, team, model = run.position.best_loss, run.team, run.loaded.model
    if best is None:
        return checkpoint.trained_weights(model, keep=team.leads) if team.takes_part else {}
    if not team.leads:
        return {}
    run.report.summary["tuned"] = {
        "validationLoss": best,
        "perplexity": perplexity(best),
        "step": run.position.best_step,
    }
    run.report.log(f"tuned model: validation loss {best:.4f}, after step {run.position.best_step}")
    if team.sharded:
        return checkpoint.best_weights(run.folder)
    checkpoint.put_best(run.folder, model)
    return checkpoint.trained_weights(model)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    leave(main())
