"""`python tests/container_env.py`: make the environment of a SageMaker training container.

It holds a part of what AWS's stock PyTorch training image holds (IMAGE; the whole of it is several
GB of GPU packages: what lacks here can only make a job fail that would run there), and what the
container's own code installs over it from the lists that it gets. torch is the version that the
other tests run with: the image has 2.10.0 for CUDA 13 on Python 3.13. Made once, and again when
what it is made from has changed.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from cloudft.backends.sagemaker import trainer_archive

REPOSITORY = Path(__file__).resolve().parents[1]
FOLDER = REPOSITORY / ".venv-container"
"""Below it, by what it is made from."""
WHEELS = "wheels"
"""A folder in it: the wheels of QLoRA's list, which no container but QLoRA's installs."""
IMAGE = (
    "accelerate==1.12.0",  # as old as the image; what a container installs goes over it
    *("filelock", "fsspec", "jinja2", "numpy", "packaging", "psutil", "PyYAML", "requests", "tqdm"),
)
"""Source: aws/deep-learning-containers, pytorch/training/docker/2.10/py3/cu130/Dockerfile.gpu."""
MADE = ".made"


def torch() -> str:
    """The line of constraints.txt."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    return next(line for line in lines if line.startswith("torch=="))


def digest() -> str:
    """What it is made from."""
    lines = [torch(), *IMAGE, *map(str, sys.version_info[:2])]
    lines += [
        *trainer_archive.read_requirements(),
        *trainer_archive.read_requirements(trainer_archive.QLORA_REQUIREMENTS),
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def make() -> Path:
    """Its python. Processes that want it at once wait for the first."""
    folder = FOLDER / digest()[:12]
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / MADE).exists():
            for old in FOLDER.iterdir():
                shutil.rmtree(old, ignore_errors=True)
            _make(folder)
            (folder / MADE).touch()
    return folder / "bin" / "python"


def _make(folder: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check"]
    flags = os.environ.get("PIP_FLAGS", "").split()
    subprocess.run([*pip, "install", "--quiet", *flags, torch(), *IMAGE], check=True)
    wheels = ["--quiet", *flags, "--no-deps", "--dest", folder / WHEELS]
    subprocess.run(
        [
            *pip,
            "download",
            *wheels,
            *trainer_archive.read_requirements(trainer_archive.QLORA_REQUIREMENTS),
        ],
        check=True,
    )
    with tempfile.TemporaryDirectory() as code:
        with tarfile.open(fileobj=io.BytesIO(trainer_archive.build_archive().content)) as archive:
            archive.extractall(code, filter="data")
        program = (
            "from pathlib import Path\n"
            "from local_backend.container.pip_requirements import install_requirements\n"
            "install_requirements(Path(), 'lora')\n"
        )
        subprocess.run([python, "-c", program], cwd=code, check=True)


if __name__ == "__main__":
    make()
