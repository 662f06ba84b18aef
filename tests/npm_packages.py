"""Scripts in JavaScript with the npm packages that they import, where npm can be used."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def install(source: Path, folder: Path) -> Path:
    """Copy a folder with a package.json, install its packages, and return the copy.

    Skip the test where there is no npm or no registry.
    """
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    shutil.copytree(source, folder, dirs_exist_ok=True)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"the packages of {source.name} can't be installed from npm here")
    return folder
