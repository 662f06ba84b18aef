"""Decide once, before a job's first step, whether it computes with compiled kernels."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from local_backend.device import count_all_threads
from local_backend.packed.kernels.calls import Kernels
from local_backend.packed.kernels.compile import (
    KernelError,
    compile_kernels,
    is_compiled,
    kernels_folder,
    source_digest,
)

COMPILE_SECONDS = 3.0
"""What compiling costs: one to two seconds of one core, more on a busy machine."""
SAVED_SHARE = 0.1
"""The share of a step that kernels save at least (benchmarks/RESULTS.md)."""
OPERATIONS_PER_SECOND = 1e11
"""What a thread computes in training, roughly: it separates seconds from minutes."""


@dataclass(frozen=True)
class JobSize:
    """What a job computes: its tokens in all epochs go through so many weights."""

    tokens: int
    weights: int

    def seconds(self) -> float:
        """Return roughly how long its steps take on this machine's CPU."""
        operations = 4 * self.weights * self.tokens  # forward, and backward of the activations
        return operations / (OPERATIONS_PER_SECOND * count_all_threads())


def choose_kernels(
    size: JobSize, recorded: str | None, log: Callable[[str], None]
) -> tuple[Kernels | None, str]:
    """Return the kernels for a job, or None, and what its checkpoints record of the choice.

    `recorded` is what the checkpoint to continue from has; None for a job that starts. A job keeps
    its first choice: kernels round differently, so that its curve would change in the last digits.
    A job that is over before compiling would pay off does without them, even where they are
    compiled: the same job has the same curve whatever ran on the machine before.
    """
    if recorded == "":
        log("computing without compiled kernels, as before")
        return None, ""
    try:
        if recorded is None and size.seconds() * SAVED_SHARE < COMPILE_SECONDS:
            log("computing without compiled kernels: the job is too short for them")
            return None, ""
        folder = kernels_folder()
        if not is_compiled(folder):
            started = time.monotonic()
            compile_kernels(folder)
            log(f"compiled the kernels in {time.monotonic() - started:.1f} s: {folder}")
        kernels = Kernels(folder)
    except KernelError as error:
        log(f"computing without compiled kernels: {error}")
        if recorded:
            log("warning: the steps before used them: losses may differ in the last digits")
        return None, ""
    log("computing with compiled kernels")
    if recorded and recorded != source_digest():
        log("warning: the steps before used others: losses may differ in the last digits")
    return kernels, source_digest()
