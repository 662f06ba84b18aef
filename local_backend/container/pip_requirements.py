"""Install with pip what the trainer needs and a container image lacks."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from local_backend.errors import TrainerError

REQUIREMENTS = "requirements.txt"
METHOD_REQUIREMENTS = {"qlora": "requirements-qlora.txt"}
"""The list that a training method needs in addition to REQUIREMENTS."""
TORCH_MIN = (2, 6)
"""The oldest PyTorch that the trainer supports; the extra `local` has the same bound."""


def install_requirements(folder: Path, method: str) -> None:
    """Install what `method` needs, from the lists in `folder`. Raise TrainerError."""
    names = [REQUIREMENTS]
    if method in METHOD_REQUIREMENTS:
        names.append(METHOD_REQUIREMENTS[method])
    lines = [line for name in names for line in read_requirements(folder / name)]
    missing = [line for line in lines if not is_satisfied(line)]
    if not missing:
        return
    print(f"installing {', '.join(missing)}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*command, *missing], stderr=subprocess.PIPE, text=True, check=False)
    print(done.stderr, end="", flush=True)
    if done.returncode != 0:
        raise TrainerError(
            f"pip can't install {', '.join(missing)}: {done.stderr.strip()[-300:]}",
            fix="give the network access to a package index, or use an image that has these"
            " packages (docs/how-to/train-on-sagemaker.md).",
        )


def read_requirements(path: Path) -> list[str]:
    """Return the requirements of a list; none if there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in lines if line and not line.startswith("#")]


def is_satisfied(requirement: str) -> bool:
    """Return True if a requirement is installed in that version, or is not for this Python."""
    try:
        from packaging.requirements import Requirement
    except ImportError:
        return False
    parsed = Requirement(requirement)
    if parsed.marker is not None and not parsed.marker.evaluate():
        return True
    try:
        return parsed.specifier.contains(version(parsed.name), prereleases=True)
    except PackageNotFoundError:
        return False


def require_torch() -> None:
    """Raise TrainerError for an image without PyTorch, or with a version that is too old."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        installed = ""
    # Compared without `packaging`, which an image may lack until the requirements are installed.
    parts = tuple(int(part) for part in installed.split("+")[0].split(".")[:2] if part.isdigit())
    if parts < TORCH_MIN:
        oldest = ".".join(map(str, TORCH_MIN))
        raise TrainerError(
            f"the image has PyTorch {installed or '(none)'}; the trainer needs {oldest} or newer.",
            fix="choose a newer PyTorch training image (sagemaker.image_uri, or pytorch_version).",
        )
