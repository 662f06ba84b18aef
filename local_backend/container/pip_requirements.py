"""What the trainer needs in a container and its image lacks, installed with pip."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from local_backend.errors import TrainerError

REQUIREMENTS = "requirements.txt"
METHOD_REQUIREMENTS = {"qlora": "requirements-qlora.txt"}
"""What a training method needs beside REQUIREMENTS."""
TORCH_MIN = (2, 6)
"""The oldest PyTorch that the trainer runs on (the extra `local` says so, too)."""


def install_requirements(folder: Path, method: str) -> None:
    """Install what `method` needs by the lists in `folder`. Raises TrainerError."""
    names = (
        [REQUIREMENTS, METHOD_REQUIREMENTS[method]]
        if method in METHOD_REQUIREMENTS
        else [REQUIREMENTS]
    )
    missing = [
        line
        for name in names
        for line in read_requirements(folder / name)
        if not is_satisfied(line)
    ]
    if not missing:
        return
    print(f"installing {', '.join(missing)}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *missing], stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="", flush=True)
    if done.returncode != 0:
        raise TrainerError(
            f"pip could not install {', '.join(missing)}: {done.stderr.strip()[-300:]}",
            fix="let the network have a way to a package index, or take an image that has them"
            " (docs/how-to/train-on-sagemaker.md).",
        )


def read_requirements(path: Path) -> list[str]:
    """Return the requirements of a list; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines if line and not line.startswith("#")]


def is_satisfied(requirement: str) -> bool:
    """Return True when it is installed in that version, or not wanted by this Python."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return False
    wanted = Requirement(requirement)
    if wanted.marker is not None and not wanted.marker.evaluate():
        return True
    try:
        return wanted.specifier.contains(version(wanted.name), prereleases=True)
    except PackageNotFoundError:
        return False


def require_torch() -> None:
    """Raise TrainerError for an image without PyTorch, or with one that is too old."""
    try:
        found = version("torch")
    except PackageNotFoundError:
        found = ""
    parts = tuple(int(part) for part in found.split("+")[0].split(".")[:2] if part.isdigit())
    if parts < TORCH_MIN:
        floor = ".".join(map(str, TORCH_MIN))
        raise TrainerError(
            f"the image has PyTorch {found or '(none)'}, and the trainer needs {floor} or newer.",
            fix="name a newer PyTorch training image (sagemaker.image_uri, or pytorch_version).",
        )
