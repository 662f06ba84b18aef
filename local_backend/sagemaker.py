"""`python -m local_backend.sagemaker`: run one job in a container of SageMaker's training.

    ROOT/input/data/job/         job.json and manifest.json
    ROOT/input/data/train/ ...   the staged files, a channel each; model/ has weights that were sent
    ROOT/checkpoints/            copied to S3 by SageMaker, and back onto another spot machine
    ROOT/model/                  what becomes model.tar.gz: the artifacts of a completed job
    ROOT/output/failure          why it failed: SageMaker tells it as the job's FailureReason
    ROOT/job/                    the job's folder, made here of all that

ROOT is /opt/ml there. The names that SageMaker's training toolkit sets (SM_CHANNEL_TRAIN,
SM_MODEL_DIR, ...) win where they are set. Curve and state are printed as lines that begin with
MARK, for whoever reads the log. Source of the layout: SageMaker developer guide, "Amazon SageMaker
Training Storage Folders"; of the names: the toolkit's ENVIRONMENT_VARIABLES.md.
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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

MARK = "#cloudft "
"""What is for machines, up to the line's end: `#cloudft metric {...}`, `#cloudft state {...}`."""
POLL_S = 0.25
PORT = "29500"
"""Where the trainers of several machines meet: torchrun's own default."""
FAILURE_MAX = 1024
"""Characters of a failure message that SageMaker keeps."""
REQUIREMENTS = "requirements.txt"


@dataclass(frozen=True)
class Places:
    """Where everything is."""

    root: Path
    environ: Mapping[str, str]

    def channel(self, name: str) -> Path:
        """The folder of an input channel; it need not be there."""
        given = self.environ.get(f"SM_CHANNEL_{name.upper()}")
        return Path(given) if given else self.root / "input" / "data" / name

    @property
    def model(self) -> Path:
        """What is kept of a completed job."""
        return Path(self.environ.get("SM_MODEL_DIR") or self.root / "model")

    @property
    def output(self) -> Path:
        """Where a failure is told."""
        return Path(self.environ.get("SM_OUTPUT_DIR") or self.root / "output")

    @property
    def checkpoints(self) -> Path:
        """What outlives the machine."""
        return self.root / CHECKPOINTS

    @property
    def job(self) -> Path:
        """The job's folder."""
        return self.root / "job"


def main(argv: list[str] | None = None) -> int:
    """Run the job; 0 when it did not fail."""
    parser = argparse.ArgumentParser(prog="python -m local_backend.sagemaker", description=__doc__)
    parser.add_argument("--root", type=Path, default=Path("/opt/ml"))
    places = Places(parser.parse_args(argv).root, os.environ)
    try:
        install(Path(__file__).resolve().parents[1] / REQUIREMENTS)
        job_dir = prepare(places)
        return conclude(job_dir, places, run(job_dir))
    except (OSError, ValueError, KeyError, subprocess.CalledProcessError) as error:
        return fail(places, f"The job could not be begun: {type(error).__name__}: {error}")


def install(requirements: Path) -> None:
    """What the trainer needs and the image lacks. Raises CalledProcessError."""
    lines = requirements.read_text(encoding="utf-8").split("\n") if requirements.is_file() else []
    missing = [line for line in lines if line and not satisfied(line)]
    if missing:
        print(f"installing {', '.join(missing)}", flush=True)
        command = [sys.executable, "-m", "pip", "install", "--quiet", *missing]
        subprocess.run(command, check=True)


def satisfied(requirement: str) -> bool:
    """True when a distribution of that name and version is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        from packaging.requirements import Requirement
    except ImportError:
        return False
    wanted = Requirement(requirement)
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False


def prepare(places: Places) -> JobDir:
    """The job's folder: its request with this machine's paths, links to data, what was kept."""
    shutil.rmtree(places.job, ignore_errors=True)
    job_dir = JobDir(places.job)
    (job_dir / DATA).mkdir(parents=True, exist_ok=True)
    source = places.channel("job")
    request = json.loads((source / JOB).read_text(encoding="utf-8"))
    for role, file in request["data"].items():
        _link(places.channel(role) / Path(file["path"]).name, job_dir / file["path"])
    for weights in request["model"]["weights"]:
        if weights["kind"] == "folder":
            weights["path"] = str(places.channel("model"))
    shutil.copyfile(source / MANIFEST, job_dir / DATA / MANIFEST)
    request["processes"] = max(1, gpu_count())
    write_json(job_dir / JOB, request)
    kept = places.checkpoints / CHECKPOINTS
    kept.mkdir(parents=True, exist_ok=True)
    _link(kept, job_dir / CHECKPOINTS)
    curve = places.checkpoints / METRICS
    curve.touch()
    _link(curve, job_dir / METRICS)
    keep_whole(kept, curve)
    return job_dir


def _link(target: Path, link: Path) -> None:
    link.symlink_to(target)


def keep_whole(checkpoints: Path, curve: Path) -> None:
    """Leave whole checkpoints alone, and the curve up to the newest: a machine may be taken away
    between two copies.
    """
    keep = 0
    for folder in sorted(checkpoints.glob("step-*")):
        length = curve_bytes(folder)
        if length is None or length > curve.stat().st_size:
            print(f"leaving checkpoint {folder.name} out: it is not whole", flush=True)
            shutil.rmtree(folder, ignore_errors=True)
        else:
            keep = length
    os.truncate(curve, keep)


def curve_bytes(checkpoint: Path) -> int | None:
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


def among_machines() -> dict[str, str]:
    """What tells the trainers of several machines where they meet; empty for one machine."""
    hosts = json.loads(os.environ.get("SM_HOSTS") or "[]")
    if len(hosts) <= 1:
        return {}
    return {
        "GROUP_WORLD_SIZE": str(len(hosts)),
        "GROUP_RANK": str(hosts.index(os.environ["SM_CURRENT_HOST"])),
        "MASTER_ADDR": hosts[0],
        "MASTER_PORT": os.environ.get("MASTER_PORT", PORT),
    }


def gpu_count() -> int:
    """GPUs of this machine."""
    if os.environ.get("SM_NUM_GPUS"):
        return int(os.environ["SM_NUM_GPUS"])
    import torch

    return torch.cuda.device_count()


def run(job_dir: JobDir) -> int:
    """The trainer to its end, its status; what it learns is printed as it comes."""
    words = [sys.executable, "-m", "local_backend", str(job_dir.path)]
    child = subprocess.Popen(words, env=os.environ | among_machines())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: child.send_signal(received))
    told = Told(job_dir)
    while child.poll() is None:
        told.tell()
        time.sleep(POLL_S)
    told.tell()
    return child.wait()


def say(line: str) -> None:
    """One line, in one write: the trainer writes to the same pipe, and may be within a line."""
    sys.stdout.flush()
    os.write(sys.stdout.fileno(), f"{line}\n".encode())


class Told:
    """What of the curve and the state has been printed. What was kept is printed once more."""

    def __init__(self, job_dir: JobDir) -> None:
        self.job_dir = job_dir
        self.at = 0
        self.state = b""

    def tell(self) -> None:
        """Print what is new."""
        for line in self._points():
            say(f"{MARK}metric {line}")
        with contextlib.suppress(FileNotFoundError):
            state = (self.job_dir / STATE).read_bytes()
            if state != self.state:
                self.state = state
                say(f"{MARK}state {json.dumps(json.loads(state))}")

    def _points(self) -> Iterator[str]:
        with (self.job_dir / METRICS).open("rb") as stream:
            stream.seek(self.at)
            for line in stream:
                if line.endswith(b"\n"):
                    self.at += len(line)
                    yield line.decode().rstrip("\n")


def conclude(job_dir: JobDir, places: Places, status: int) -> int:
    """Hand on what the trainer left; the first of several machines has it all."""
    if status == 0 and job_dir.ended() is None:
        return 0
    ending: dict[str, Any] = job_dir.ended() or {"status": FAILED, "failureMessage": "no ending"}
    if ending["status"] == COMPLETED:
        places.model.mkdir(parents=True, exist_ok=True)
        shutil.copytree(job_dir / ARTIFACTS, places.model, dirs_exist_ok=True)
        return 0
    if ending["status"] == STOPPED:
        return 0
    return fail(places, str(ending.get("failureMessage")))


def fail(places: Places, message: str) -> int:
    """Leave the reason where SageMaker looks for it."""
    print(f"failed: {message}", flush=True)
    places.output.mkdir(parents=True, exist_ok=True)
    (places.output / "failure").write_text(message[:FAILURE_MAX], encoding="utf-8")
    return 1


if __name__ == "__main__":
    sys.exit(main())
