"""`python -m local_backend.sagemaker`: run one job in a container of SageMaker's training.

    ROOT/input/data/job/         job.json and manifest.json
    ROOT/input/data/train/ ...   the staged files, a channel each; model/ has weights that were sent
    ROOT/input/config/           resourceconfig.json: the machines of the job, and which this one is
    ROOT/checkpoints/            copied to S3 by SageMaker, and back onto another spot machine
    ROOT/model/                  what becomes model.tar.gz: the artifacts of a completed job
    ROOT/output/failure          why it failed: SageMaker tells it as the job's FailureReason
    ROOT/job/                    the job's folder, made here of all that

ROOT is /opt/ml there (opt_ml.py has the layout and its source). Curve and state are printed as
lines that begin with MARK, for whoever reads the log.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from local_backend.container.environment import (
    ContainerPaths,
    Machine,
    count_gpus,
    read_machine,
    require_gpu,
)
from local_backend.container.pip_requirements import install_requirements, require_torch
from local_backend.errors import TrainerError
from local_backend.job_dir import (
    ARTIFACTS,
    CHECKPOINTS,
    COMPLETED,
    DATA,
    FAILED,
    JOB,
    MANIFEST,
    METRICS,
    STATE,
    STOPPED,
    JobDir,
    write_json,
)

LOG_MARK = "#cloudft "
"""What is for machines, up to the line's end: `#cloudft metric {...}`, `#cloudft state {...}`."""
POLL_S = 0.25
FAILURE_MAX = 1024
"""Characters of a failure message that SageMaker keeps."""


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 when it did not fail."""
    parser = argparse.ArgumentParser(prog="python -m local_backend.sagemaker", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/opt/ml"))
    places = ContainerPaths(parser.parse_args(argv).root, os.environ)
    try:
        machine = read_machine(places)
        require_torch()
        gpus = count_gpus(machine, places.environ)
        require_gpu(machine, gpus)
        request = read_request(places)
        install_requirements(Path(__file__).resolve().parents[1], request.get("method", ""))
        job_dir = prepare_job_dir(places, request, machine, gpus)
        return finish_job(job_dir, places, run_trainer(job_dir, machine))
    except TrainerError as error:
        return write_failure(places, str(error))
    except (OSError, ValueError, KeyError, ImportError) as error:
        return write_failure(places, f"The job could not be begun: {type(error).__name__}: {error}")


def read_request(places: ContainerPaths) -> dict[str, Any]:
    """Return the job's request. Raises OSError and ValueError."""
    found: dict[str, Any] = json.loads((places.channel("job") / JOB).read_text(encoding="utf-8"))
    return found


def prepare_job_dir(
    places: ContainerPaths, request: dict[str, Any], machine: Machine, gpus: int
) -> JobDir:
    """The job's folder: its request with this machine's paths, links to data, what was kept."""
    shutil.rmtree(places.job, ignore_errors=True)
    job_dir = JobDir(places.job)
    (job_dir / DATA).mkdir(parents=True, exist_ok=True)
    for role, file in request["data"].items():
        _link(places.channel(role) / Path(file["path"]).name, job_dir / file["path"])
    for weights in request["model"]["weights"]:
        if weights["kind"] == "folder":
            weights["path"] = str(places.channel("model"))
    shutil.copyfile(places.channel("job") / MANIFEST, job_dir / DATA / MANIFEST)
    request["processes"] = max(1, gpus)
    write_json(job_dir / JOB, request)
    _restore_checkpoints(places, job_dir, leads=machine.rank == 0)
    return job_dir


def _restore_checkpoints(places: ContainerPaths, job_dir: JobDir, *, leads: bool) -> None:
    """Bring what was kept into the job's folder.

    All machines copy their checkpoints to one place in S3: of the others, which write none, an old
    curve there would lie over that of the first. So theirs is a copy elsewhere.
    """
    kept, curve = places.checkpoints / CHECKPOINTS, places.checkpoints / METRICS
    if leads:
        kept.mkdir(parents=True, exist_ok=True)
        curve.touch()
        _link(curve, job_dir / METRICS)
    else:
        (job_dir / METRICS).write_bytes(curve.read_bytes() if curve.is_file() else b"")
    if leads or kept.is_dir():
        _link(kept, job_dir / CHECKPOINTS)
        drop_damaged_checkpoints(kept, job_dir / METRICS)


def _link(target: Path, link: Path) -> None:
    link.symlink_to(target)


def drop_damaged_checkpoints(checkpoints: Path, curve: Path) -> None:
    """Leave whole checkpoints alone, and the curve up to the newest: a machine may be taken away
    between two copies.
    """
    keep = 0
    for folder in sorted(checkpoints.glob("step-*")):
        length = curve_length_at(folder)
        if length is None or length > curve.stat().st_size:
            print(f"leaving checkpoint {folder.name} out: it is not whole", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            keep = length
    os.truncate(curve, keep)


def curve_length_at(checkpoint: Path) -> int | None:
    """How long the curve was at a checkpoint; None when a file of it is missing or damaged."""
    try:
        record = json.loads((checkpoint / "position.json").read_bytes())
        whole = all(_sha256(checkpoint / name) == sha for name, sha in record["sha256"].items())
        return int(record["position"]["metrics_bytes"]) if whole else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def run_trainer(job_dir: JobDir, machine: Machine) -> int:
    """The trainer to its end, its status; what it learns is printed as it comes."""
    words = [sys.executable, "-m", "local_backend", str(job_dir.path)]
    child = subprocess.Popen(words, env=os.environ | machine.distributed_environment(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    told = LogForwarder(job_dir)
    while child.poll() is None:
        told.forward()
        time.sleep(POLL_S)
    told.forward()
    return child.wait()


def print_line(line: str) -> None:
    """One line, in one write: the trainer writes to the same pipe, and may be within a line."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


class LogForwarder:
    """What of the curve and the state has been printed. What was kept is printed once more."""

    def __init__(self, job_dir: JobDir) -> None:
        self.job_dir = job_dir
        self.offset = 0
        self.state = b""

    def forward(self) -> None:
        """Print what is new."""
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


def finish_job(job_dir: JobDir, places: ContainerPaths, status: int) -> int:
    """Hand on what the trainer left; the first of several machines has it all."""
    if status == 0 and job_dir.read_ending() is None:
        return 0
    ending: dict[str, Any] = job_dir.read_ending() or {
        "status": FAILED,
        "failureMessage": "no ending",
    }
    if ending["status"] == COMPLETED:
        places.model.mkdir(parents=True, exist_ok=True)
        shutil.copytree(job_dir / ARTIFACTS, places.model, dirs_exist_ok=True)
        return 0
    if ending["status"] == STOPPED:
        return 0
    return write_failure(places, str(ending.get("failureMessage")))


def write_failure(places: ContainerPaths, message: str) -> int:
    """Leave the reason where SageMaker looks for it."""
    print(f"failed: {message}", flush=True)
    places.output.mkdir(parents=True, exist_ok=True)
    (places.output / "failure").write_text(message[:FAILURE_MAX], encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
