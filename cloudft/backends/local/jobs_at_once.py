"""Decide how many short jobs of one kind are trained at once on this machine's CPU.

A step of a small model has too little work for all cores: they wait for each other. Two trainers
with half of the cores each do more steps in the same time. Measured in benchmarks/RESULTS.md.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from cloudft.backends.local.preflight import takes_packed_path
from cloudft.backends.local.warm_trainer import can_start_warm
from cloudft.backends.trained_model import count_parameters, trained_model
from cloudft.spec.load import LoadedJob

MOST_PARAMETERS = 500_000_000
"""The steps of larger models keep all cores busy."""
BYTES_PER_PARAMETER = 8
"""What a LoRA trainer has of a weight at its peak: it is read in float32, and kept in bfloat16."""
OTHER_BYTES = 2**30
"""What a trainer has besides: its libraries and activations."""
AT_ONCE = 2
GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd")


def jobs_at_once(job: LoadedJob) -> int:
    """Return how many trainers of the job to run at once: 2, or 1 where that is not known to pay.

    2 only where a job computes the same digits with half of the cores: adapters on the packed path,
    in bfloat16. Products in float32 add in another order then.
    """
    local, model = job.spec.local, trained_model(job)
    parameters = None if model is None else count_parameters(model)
    if parameters is None or parameters > MOST_PARAMETERS or local.method != "lora":
        return 1
    if not (can_start_warm(job) and takes_packed_path(job)):
        return 1
    if not (_is_on_cpu(local.device) and _has_bfloat16(local.dtype)):
        return 1
    needed = AT_ONCE * (parameters * BYTES_PER_PARAMETER + OTHER_BYTES)
    return AT_ONCE if _cores() >= AT_ONCE and _free_bytes() >= needed else 1


def threads_of_each(jobs: int) -> int:
    """Return the threads of one of so many trainers that share the cores."""
    return max(1, _cores() // jobs)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _is_on_cpu(device: str) -> bool:
    has_gpu = any(Path(name).exists() for name in GPU_DEVICES)
    return device == "cpu" or (device == "auto" and not has_gpu)


def _has_bfloat16(dtype: str) -> bool:
    """Return whether products are in bfloat16: as the trainer chooses (local_backend/device.py)."""
    if dtype == "float32":
        return False
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def _free_bytes() -> int:
    """Return the memory that is available; 0 if unknown."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
