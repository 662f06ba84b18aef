"""Which device and number format to compute with, and what this machine has.

`python -m local_backend.device` prints what it found as JSON, for `cloudft doctor` and `check`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import Any

import torch

from local_backend.errors import TrainerError
from local_backend.process_exit import exit_now


def choose_device(name: str) -> torch.device:
    """`auto` takes CUDA, then MPS, then the CPU. A device that is named but missing is refused."""
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(name for name, there in present.items() if there))
    if not present[name]:
        raise TrainerError(
            f"local.device is {name}, and PyTorch {torch.__version__} finds none here.",
            fix="use `device: auto`, or install a PyTorch build for it (`cloudft doctor`).",
        )
    return torch.device(name)


def cpu_has_bfloat16() -> bool:
    """True where the CPU multiplies bfloat16 faster than float32 (AVX512-BF16 or AMX)."""
    with contextlib.suppress(OSError):
        words = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "avx512_bf16" in words or "amx_bf16" in words
    return False


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """The format matrices are multiplied in. `auto`: bfloat16 where the machine is good at it."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    good = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": cpu_has_bfloat16,
    }
    return torch.bfloat16 if good.get(device.type, lambda: False)() else torch.float32


def is_out_of_memory(error: BaseException) -> bool:
    """True for an allocation that failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "out of memory" in text.lower()
    )


def empty_device_cache(device: torch.device) -> None:
    """Hand freed blocks back to the device, after an allocation that failed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def trim_heap() -> None:
    """Give what was freed back to the machine; glibc keeps it otherwise. Nothing elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory_bytes(device: torch.device) -> int | None:
    """Memory of the device (the machine's for a CPU) that nobody uses; None if it can't be told."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                if line.startswith("MemAvailable:"):
                    return min(int(line.split()[1]) * 1024, _cgroup_free_bytes() or sys.maxsize)
    return total_memory_bytes()


def _cgroup_free_bytes() -> int | None:
    """What the control group leaves this process (cgroup v2); None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return limit - int((group / "memory.current").read_text(encoding="ascii"))
    return None


def total_memory_bytes() -> int | None:
    """Memory of the machine in bytes; None where it can't be told."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


def describe_machine() -> dict[str, Any]:
    """Packages, devices and memory, as plain data."""
    packages = {}
    for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "gguf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    device = choose_device("auto")
    gpus = [
        {"name": p.name, "memoryBytes": p.total_memory}
        for p in map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    ]
    return {
        "packages": packages,
        "device": device.type,
        "dtype": str(choose_dtype("auto", device)).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "memoryBytes": total_memory_bytes(),
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
    }


if __name__ == "__main__":
    print(json.dumps(describe_machine()))
    exit_now(0)
