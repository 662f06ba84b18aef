"""A headless Chromium that an npm package carries, for machines that have none installed."""

from __future__ import annotations

import subprocess
from pathlib import Path

import npm_packages

PAGE = Path(__file__).parent / "e2e" / "review_page"
"""The script that drives it, and package.json."""
WHERE = "import chromium from '@sparticuz/chromium'; console.log(await chromium.executablePath());"


def install(folder: Path) -> Path:
    """Install script and browser into `folder` and return it; skip the test where npm can't."""
    return npm_packages.install(PAGE, folder)


def executable(folder: Path) -> str:
    """Return the path of the browser that `install` has put into `folder`."""
    command = ["node", "--input-type=module", "-e", WHERE]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=True
    )
    return done.stdout.strip()
