"""The trainer's probe of a job: a child process that takes some of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends.base import Progress
from cloudft.backends.local import child
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
    for reply in child.replies(["local_backend.probe", str(job_dir), str(steps)], environment):
        if "done" in reply:
            progress("steps", reply["done"], reply["total"])
        said |= reply
    took, memory = said["took"], said.get("memory")
    return Probed(
        tokens=took["tokens"],
        steps=took["steps"],
        seconds=took["seconds"],
        memory=Memory(**memory) if memory else None,
    )
