"""Compile kernels.cpp with the machine's C++ compiler, once, into a cache that outlives the job.

    CLOUDFT_MODEL_CACHE/kernels/KEY/   kernels.so, kernels.json (written last) with its SHA-256

KEY names the source, the compiler, its flags and the processor: whatever changes one of them gets a
folder of its own. A damaged folder is made again.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

from local_backend.atomic_folders import atomic_folder
from local_backend.file_digest import sha256_file
from local_backend.models.weights import model_cache

SOURCE = Path(__file__).with_name("kernels.cpp")
LIBRARY, RECORD = "kernels.so", "kernels.json"
FLAGS = (
    *("-O3", "-march=native", "-std=c++17", "-fPIC", "-shared", "-fopenmp"),
    # Neither errno nor floating-point traps are used; with them, floor() is not vectorized.
    *("-fno-math-errno", "-fno-trapping-math"),
)
COMPILERS = ("g++", "c++")
"""Names of GNU's compiler, whose OpenMP library is PyTorch's. Clang's would be a second one."""
COMPILE_TIMEOUT = 120.0
"""Seconds. It takes one to two."""


class KernelError(Exception):
    """The kernels can't be used here; the message says why."""


def kernels_folder() -> Path:
    """Return the folder of compiled kernels for this processor, compiler and source.

    Raise KernelError if there is no compiler for them.
    """
    return model_cache() / "kernels" / _key(find_compiler())


def is_compiled(folder: Path) -> bool:
    """Return True if `folder` has a whole library, which this user or root has made.

    A library is code: in a cache that several people write, another's is not run.
    """
    try:
        if not {folder.stat().st_uid, (folder / LIBRARY).stat().st_uid} <= {os.getuid(), 0}:
            return False
        record = json.loads((folder / RECORD).read_text())
        return bool(record["sha256"] == sha256_file(folder / LIBRARY))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def compile_kernels(folder: Path) -> None:
    """Compile the kernels into `folder`, in place of a damaged one. Raise KernelError."""
    try:
        with atomic_folder(folder, replace=True) as new:
            _run_compiler(new / LIBRARY)
            record = {"sha256": sha256_file(new / LIBRARY)}
            (new / RECORD).write_text(json.dumps(record))
    except OSError as error:
        # Another job may have been faster; otherwise the disk is full or can't be written.
        if not is_compiled(folder):
            raise KernelError(f"{folder} can't be written: {error.strerror}") from error


def load_library(folder: Path) -> ctypes.CDLL:
    """Return the library in `folder`. Raise KernelError if this machine can't load it."""
    try:
        return ctypes.CDLL(str(folder / LIBRARY))
    except OSError as error:
        raise KernelError(f"the compiled library can't be loaded: {error}") from error


def source_digest() -> str:
    """Return the digest of what the kernels compute, 12 hex digits. Raise KernelError."""
    try:
        source = SOURCE.read_bytes()
    except OSError as error:
        raise KernelError(f"their source {SOURCE} can't be read: {error.strerror}") from error
    return hashlib.sha256(source).hexdigest()[:12]


def find_compiler() -> str:
    """Return the path of GNU's C++ compiler. Raise KernelError if there is none."""
    if not sys.platform.startswith("linux"):
        raise KernelError(f"they are made for Linux, and this is {platform.system()}")
    for name in COMPILERS:
        path = shutil.which(name)
        if path is not None and "Free Software Foundation" in _version(path):
            return path
    raise KernelError(f"no GNU C++ compiler is installed ({' or '.join(COMPILERS)})")


@functools.cache
def _version(compiler: str) -> str:
    try:
        done = subprocess.run([compiler, "--version"], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _key(compiler: str) -> str:
    parts = [source_digest(), compiler, _version(compiler), *FLAGS, _processor()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def _processor() -> str:
    """Return what -march=native depends on: the machine's architecture and what its CPU can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = ("model name", "flags", "Features", "CPU part")
    described = {line for line in lines if line.split("\t")[0].split(":")[0].strip() in names}
    return "\n".join([platform.machine(), *sorted(described)])


def _run_compiler(output: Path) -> None:
    command = [find_compiler(), *FLAGS, str(SOURCE), "-o", str(output)]
    # With a locale of its own, the compiler's messages are in English as the rest of the log.
    environ = os.environ | {"LC_ALL": "C"}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMPILE_TIMEOUT, env=environ
        )
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"the compiler took over {COMPILE_TIMEOUT:g} seconds") from error
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["no message"]
        raise KernelError(f"the compiler failed: {lines[0][:200]}")
