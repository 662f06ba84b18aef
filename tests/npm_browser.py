"""A headless Chromium that an npm package carries, for machines that have none installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = Path(__file__).parent / "e2e" / "review_page"
"""The script that drives it, and package.json."""
WHERE = "import chromium from '@sparticuz/chromium'; console.log(await chromium.executablePath());"


def install(folder: Path) -> Path:
    """Install script and browser into `folder` and return it; skip the test where npm can't."""
    if shutil.which("npm") is None:
        pytest.skip("npm is not here")
    shutil.copytree(PAGE, folder, dirs_exist_ok=True)
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund"]
    done = subprocess.run(command, cwd=folder, capture_output=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip("no browser can be installed from npm here")
    return folder


def executable(folder: Path) -> str:
    """Return the path of the browser that `install` has put into `folder`."""
    command = ["node", "--input-type=module", "-e", WHERE]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()
