"""Run the trainer's probe of a job: a child process that takes some of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloudft.backends.capabilities import ProgressCallback
from cloudft.backends.local import trainer_program
from cloudft.types import PeakMemory


@dataclass(frozen=True)
class ProbeResult:
    """The result of the trainer's probe.

    `seconds` is the estimate for the whole job; None if no step was run. `teacher_seconds` are
    those of them in which a teacher on this machine answers.
    """

    tokens: int
    steps: int
    seconds: float | None
    memory: PeakMemory | None
    teacher_seconds: float = 0.0


def run_probe(
    job_dir: Path, environment: Mapping[str, str], steps: int, progress: ProgressCallback
) -> ProbeResult:
    """Run the probe. Raise TrainerError."""
    said: dict[str, Any] = {}
    for reply in trainer_program.run_trainer_program(
        ["local_backend.training.probe", str(job_dir), str(steps)], environment
    ):
        if "done" in reply:
            progress("steps", reply["done"], reply["total"])
        said |= reply
    took, memory = said["took"], said.get("memory")
    return ProbeResult(
        tokens=took["tokens"],
        steps=took["steps"],
        seconds=took["seconds"],
        memory=PeakMemory(**memory) if memory else None,
        teacher_seconds=took.get("teacherSeconds", 0.0),
    )


def describe_teacher(result: ProbeResult) -> tuple[str, ...]:
    """Return how long a teacher on this machine answers, as a sentence; nothing without one."""
    if not result.teacher_seconds:
        return ()
    return (f"the teacher answers for about {result.teacher_seconds:.0f} s of the time",)
