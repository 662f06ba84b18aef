"""Choose the device and number format to compute with, and describe this machine.

`python -m local_backend.device` prints the description as JSON, for `cloudft doctor` and `check`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.metadata
import json
import os
import sys
from pathlib import Path
from typing import TypedDict

import torch

from local_backend.errors import TrainerError
from local_backend.process_exit import exit_now


def choose_device(name: str) -> torch.device:
    """Return the device called `name`; `auto` prefers CUDA, then MPS, then the CPU.

    Raise TrainerError for a named device that is missing.
    """
    present = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        return torch.device(next(name for name, exists in present.items() if exists))
    if not present[name]:
        raise TrainerError(
            f"local.device is {name}, and PyTorch {torch.__version__} finds no such device here.",
            fix="use `device: auto`, or install a PyTorch build for it (`cloudft doctor`).",
        )
    return torch.device(name)


def cpu_has_bfloat16() -> bool:
    """Return True if the CPU multiplies bfloat16 faster than float32 (AVX512-BF16 or AMX)."""
    with contextlib.suppress(OSError):
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").split()
        return "avx512_bf16" in flags or "amx_bf16" in flags
    return False


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """Return the format for matrix products; `auto` is bfloat16 on devices that compute it."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    # Emulated bfloat16 is slower than float32, and rounds more.
    has_bfloat16 = {
        "cuda": lambda: torch.cuda.is_bf16_supported(including_emulation=False),
        "cpu": cpu_has_bfloat16,
    }
    return torch.bfloat16 if has_bfloat16.get(device.type, lambda: False)() else torch.float32


_all_threads: int | None = None
"""The threads of a trainer that has the machine for itself, where this one shares it."""


def share_cores(threads: int) -> None:
    """Compute with so many threads from now on: other trainers have the rest of the cores."""
    global _all_threads
    _all_threads = torch.get_num_threads()
    torch.set_num_threads(threads)


def count_all_threads() -> int:
    """Return the threads that this process would have alone.

    What is decided by them is the same for a job that shares the cores: it computes the same.
    """
    return torch.get_num_threads() if _all_threads is None else _all_threads


def is_out_of_memory(error: BaseException) -> bool:
    """Return True for an allocation that failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    # CPU and MPS raise a plain RuntimeError; only its text shows what happened.
    text = str(error)
    return isinstance(error, RuntimeError) and (
        "DefaultCPUAllocator" in text or "out of memory" in text.lower()
    )


def empty_device_cache(device: torch.device) -> None:
    """Return freed blocks to the device, after an allocation that failed."""
    if device.type == "cuda":
        torch.cuda.empty_cache()
    elif device.type == "mps":
        torch.mps.empty_cache()


def copy_to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a copy on the device, without waiting for what the device still computes.

    `tensor` must not be changed afterwards. On a CPU it is returned as it is.
    """
    if device.type in ("cpu", "mps"):
        return tensor.to(device)
    # CUDA copies in the background from locked pages only; PyTorch keeps those for later copies.
    # Tensors without content (memory_estimate.py) have no pages.
    has_pages = device.type == "cuda" and type(tensor) is torch.Tensor
    locked = tensor.pin_memory() if has_pages else tensor
    return locked.to(device, non_blocking=True)


def trim_heap() -> None:
    """Return freed memory to the operating system, which glibc keeps otherwise. No-op elsewhere."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def free_memory_bytes(device: torch.device) -> int | None:
    """Return the free memory of the device (for a CPU, the machine's); None if unknown."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type == "cpu":
        with contextlib.suppress(OSError, ValueError, IndexError):
            for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
                if line.startswith("MemAvailable:"):
                    return min(int(line.split()[1]) * 1024, _cgroup_free_bytes() or sys.maxsize)
    return total_memory_bytes()


def _cgroup_free_bytes() -> int | None:
    """Return what the control group leaves this process (cgroup v2); None without a limit."""
    with contextlib.suppress(OSError, ValueError):
        group = Path("/sys/fs/cgroup")
        limit = int((group / "memory.max").read_text(encoding="ascii"))
        return limit - int((group / "memory.current").read_text(encoding="ascii"))
    return None


def total_memory_bytes() -> int | None:
    """Return the machine's memory in bytes; None if unknown."""
    with contextlib.suppress(ValueError, OSError, AttributeError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return None


class Gpu(TypedDict):
    """An NVIDIA GPU."""

    name: str
    memoryBytes: int


class MachineDescription(TypedDict):
    """What `python -m local_backend.device` prints."""

    packages: dict[str, str]
    device: str
    dtype: str
    threads: int
    memoryBytes: int | None
    gpus: list[Gpu]
    mps: bool


def describe_machine() -> MachineDescription:
    """Return packages, devices and memory as JSON-compatible data."""
    packages = {}
    for name in ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "gguf"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            packages[name] = importlib.metadata.version(name)
    device = choose_device("auto")
    gpus: list[Gpu] = [
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
