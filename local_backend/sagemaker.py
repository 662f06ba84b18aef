"""Run one job in a SageMaker training container: `python -m local_backend.sagemaker`.

    ROOT/input/data/job/         job.json and manifest.json; grader.py, for reinforcement
    ROOT/input/data/train/ ...   the staged files, one channel each; model/ has uploaded weights
    ROOT/input/config/           resourceconfig.json: the job's machines, and which this one is
    ROOT/checkpoints/            copied to S3 by SageMaker, and back onto another spot machine
    ROOT/model/                  becomes model.tar.gz: the artifacts of a completed job
    ROOT/output/failure          why it failed: SageMaker shows it as the job's FailureReason
    ROOT/job/                    the job's folder, assembled here from all of these

ROOT is /opt/ml in a container (container/environment.py has the layout and its source). The loss
curve and the state are printed as lines that begin with LOG_MARK, for programs that read the log.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from local_backend.container.environment import (
    ContainerPaths,
    Machine,
    count_gpus,
    read_machine,
    require_gpu,
)
from local_backend.container.pip_requirements import install_requirements, require_torch
from local_backend.errors import TrainerError
from local_backend.file_digest import sha256_file
from local_backend.job_dir import (
    ARTIFACTS,
    CHECKPOINTS,
    COMPLETED,
    DATA,
    FAILED,
    GRADER,
    JOB,
    MANIFEST,
    METRICS,
    STATE,
    STOPPED,
    Ending,
    JobDir,
    JobRequest,
    write_json,
)

LOG_MARK = "#cloudft "
"""Begins a line for programs: `#cloudft metric {...}`, `#cloudft state {...}`."""
POLL_S = 0.25
FAILURE_MAX = 1024
"""Characters of a failure message that SageMaker keeps."""


def main(argv: list[str] | None = None) -> int:
    """Run the job. Return 0 unless it failed."""
    parser = argparse.ArgumentParser(prog="python -m local_backend.sagemaker", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/opt/ml"))
    paths = ContainerPaths(parser.parse_args(argv).root, os.environ)
    try:
        machine = read_machine(paths)
        require_torch()
        gpus = count_gpus(machine, paths.environ)
        require_gpu(machine, gpus)
        request = read_request(paths)
        install_requirements(Path(__file__).resolve().parents[1], request.get("method", ""))
        job_dir = prepare_job_dir(paths, request, machine, gpus)
        return finish_job(job_dir, paths, run_trainer(job_dir, machine))
    except TrainerError as error:
        return write_failure(paths, str(error))
    except (OSError, ValueError, KeyError, ImportError) as error:
        return write_failure(
            paths, f"The job could not be started: {type(error).__name__}: {error}"
        )


def read_request(paths: ContainerPaths) -> JobRequest:
    """Return the job's request. Raise OSError or ValueError."""
    request: JobRequest = json.loads((paths.channel("job") / JOB).read_text(encoding="utf-8"))
    return request


def prepare_job_dir(
    paths: ContainerPaths, request: JobRequest, machine: Machine, gpus: int
) -> JobDir:
    """Create the job's folder from the request, with links to the data and to checkpoints."""
    shutil.rmtree(paths.job, ignore_errors=True)
    job_dir = JobDir(paths.job)
    (job_dir / DATA).mkdir(parents=True, exist_ok=True)
    for role, file in request["data"].items():
        link = job_dir / file["path"]
        link.symlink_to(paths.channel(role) / link.name)
    for weights in request["model"]["weights"]:
        if weights["kind"] == "folder":  # a path of the machine that submitted
            weights["path"] = str(paths.channel("model"))
    shutil.copyfile(paths.channel("job") / MANIFEST, job_dir / DATA / MANIFEST)
    if "grader" in request:
        shutil.copyfile(paths.channel("job") / GRADER, job_dir / request["grader"]["path"])
    # A policy that samples its own answers trains in one process.
    request["processes"] = 1 if "grader" in request else max(1, gpus)
    write_json(job_dir / JOB, request)
    _restore_checkpoints(paths, job_dir, is_first=machine.rank == 0)
    return job_dir


def _restore_checkpoints(paths: ContainerPaths, job_dir: JobDir, *, is_first: bool) -> None:
    """Link the checkpoints and the loss curve of an interrupted run into the job's folder.

    All machines copy their checkpoint folders to one prefix in S3. Machines other than the first
    write no curve, so an old curve there would overwrite that of the first. They get a copy
    elsewhere.
    """
    saved, curve = paths.checkpoints / CHECKPOINTS, paths.checkpoints / METRICS
    if is_first:
        saved.mkdir(parents=True, exist_ok=True)
        curve.touch()
        # Links, so that the trainer writes straight into the folder that SageMaker copies.
        (job_dir / METRICS).symlink_to(curve)
    else:
        (job_dir / METRICS).write_bytes(curve.read_bytes() if curve.is_file() else b"")
    if is_first or saved.is_dir():
        (job_dir / CHECKPOINTS).symlink_to(saved)
        drop_damaged_checkpoints(saved, job_dir / METRICS)


def drop_damaged_checkpoints(checkpoints: Path, curve: Path) -> None:
    """Delete damaged checkpoints and cut the curve to the newest whole one.

    A machine may be taken away between the copies of two files.
    """
    keep_bytes = 0
    for folder in sorted(checkpoints.glob("step-*")):
        length = curve_length_at(folder)
        if length is None or length > curve.stat().st_size:
            print(f"checkpoint {folder.name} is damaged, and removed", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            keep_bytes = length
    os.truncate(curve, keep_bytes)


def curve_length_at(checkpoint: Path) -> int | None:
    """Return the curve's length in bytes at a checkpoint; None if the checkpoint is damaged."""
    try:
        record = json.loads((checkpoint / "position.json").read_bytes())
        digests = record["sha256"]
        is_whole = all(sha256_file(checkpoint / name) == sha for name, sha in digests.items())
        return int(record["position"]["metrics_bytes"]) if is_whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def run_trainer(job_dir: JobDir, machine: Machine) -> int:
    """Run the trainer to its end and return its exit status. Print points and states meanwhile."""
    command = [sys.executable, "-m", "local_backend", str(job_dir.path)]
    child = subprocess.Popen(command, env=os.environ | machine.distributed_environment(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    forwarder = LogForwarder(job_dir)
    while child.poll() is None:
        forwarder.forward()
        time.sleep(POLL_S)
    forwarder.forward()
    return child.wait()


def print_line(line: str) -> None:
    """Print one line with a single write.

    The trainer writes to the same pipe and may be in the middle of a line.
    """
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


class LogForwarder:
    """Prints new curve points and states. Points of a restored curve are printed once more."""

    def __init__(self, job_dir: JobDir) -> None:
        self.job_dir = job_dir
        self.offset = 0
        self.state = b""

    def forward(self) -> None:
        """Print what is new since the last call."""
        for line in self._new_points():
            print_line(f"{LOG_MARK}metric {line}")
        with contextlib.suppress(FileNotFoundError):
            state = (self.job_dir / STATE).read_bytes()
            if state != self.state:
                self.state = state
                print_line(f"{LOG_MARK}state {json.dumps(json.loads(state))}")

    def _new_points(self) -> Iterator[str]:
        with (self.job_dir / METRICS).open("rb") as stream:
            stream.seek(self.offset)
            for line in stream:
                if line.endswith(b"\n"):
                    self.offset += len(line)
                    yield line.decode().rstrip("\n")


def finish_job(job_dir: JobDir, paths: ContainerPaths, status: int) -> int:
    """Copy the artifacts to where SageMaker collects them. Return the exit status.

    Only the first of several machines has an ending and artifacts.
    """
    if status == 0 and job_dir.read_ending() is None:
        return 0
    ending: Ending = job_dir.read_ending() or {
        "status": FAILED,
        "failureMessage": "the trainer left no ending",
    }
    if ending["status"] == COMPLETED:
        paths.model.mkdir(parents=True, exist_ok=True)
        shutil.copytree(job_dir / ARTIFACTS, paths.model, dirs_exist_ok=True)
        return 0
    if ending["status"] == STOPPED:
        return 0
    return write_failure(paths, str(ending.get("failureMessage")))


def write_failure(paths: ContainerPaths, message: str) -> int:
    """Write the failure message where SageMaker reads it. Return 1."""
    print(f"failed: {message}", flush=True)
    paths.output.mkdir(parents=True, exist_ok=True)
    (paths.output / "failure").write_text(message[:FAILURE_MAX], encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
