"""One endpoint for all workers that run a backend's suite."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from pathlib import Path

import preloaded
from endpoint import Endpoint, furnish
from processes import wait_until

KEPT: list[subprocess.Popen[bytes]] = []
"""What was started here ends by itself; see --until-pid."""
SMALL = ("local.device=cpu", "local.dtype=float32", "local.lora.r=4", "local.lora.alpha=8")


def shared_endpoint(root: Path, model: Path) -> Endpoint:
    """The endpoint of all workers; it ends with the process group that the first of them is in."""
    with (root / "endpoint.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        note = root / "endpoint.json"
        if not note.exists():
            command = [
                preloaded.python(),
                "-m",
                "cloudft",
                "endpoint",
                "-q",
                "--state",
                str(root / "state"),
            ]
            command += ["--stand-in", str(model), "--jobs", "20", "--until-pid", str(_tests())]
            for setting in SMALL:
                command += ["--set", setting]
            log = root / "endpoint.log"
            with log.open("w") as stream:
                KEPT.append(subprocess.Popen(command, stdout=stream, stderr=stream))
            url = wait_until(lambda: log.read_text().partition("\n")[0], "the endpoint is up")
            furnish(Endpoint(url))
            note.write_text(json.dumps({"url": url}))
    return Endpoint(json.loads(note.read_text())["url"])


def _tests() -> int:
    """The process that lives as long as the tests run."""
    return os.getppid() if os.environ.get("PYTEST_XDIST_WORKER") else os.getpid()
