"""The trainer's probe of a job: a child process that takes some of its steps."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends.base import Progress
from cloudft.errors import TrainerError
from cloudft.types import Memory


@dataclass(frozen=True)
class Probed:
    """What `local_backend/probe.py` tells. `seconds` are of the whole job; None if none was run."""

    tokens: int
    steps: int
    seconds: float | None
    memory: Memory | None


def probe(job_dir: Path, environment: Mapping[str, str], steps: int, progress: Progress) -> Probed:
    """Run it. Raises TrainerError."""
    said: dict[str, Any] = {}
    with (
        tempfile.TemporaryFile("w+") as noise,
        subprocess.Popen(
            [sys.executable, "-m", "local_backend.probe", str(job_dir), str(steps)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=noise,
            text=True,
            env=dict(environment),
            start_new_session=True,
        ) as process,
    ):
        assert process.stdout is not None
        try:
            for line in process.stdout:
                reply = json.loads(line)
                if "error" in reply:
                    raise TrainerError(reply["error"], fix=reply["fix"])
                if "done" in reply:
                    progress("steps", reply["done"], reply["total"])
                said |= reply
            if process.wait() != 0 or "took" not in said:
                noise.seek(0)
                last = (noise.read().strip().splitlines() or ["no message"])[-1]
                raise TrainerError(f"the probe broke off: {last}")
        finally:
            process.kill()
    took, memory = said["took"], said.get("memory")
    return Probed(
        tokens=took["tokens"],
        steps=took["steps"],
        seconds=took["seconds"],
        memory=Memory(**memory) if memory else None,
    )
