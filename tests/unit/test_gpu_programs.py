"""The programs for a GPU end at once with one line and their own status where there is none."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
PROGRAMS = {
    "bench-gpu": ["benchmarks/gpu"],
    "test-gpu": ["-m", "pytest", "-c", "tests/gpu/pytest.ini", "tests/gpu"],
}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
@pytest.mark.parametrize("name", sorted(PROGRAMS))
def test_without_a_gpu_it_says_so(name: str) -> None:
    done = subprocess.run(
        [sys.executable, *PROGRAMS[name]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    lines = [line for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    assert done.returncode == 3 and len(lines) == 1, lines
    assert "NVIDIA GPU" in lines[0] and "PyTorch" in lines[0]
    assert name in (ROOT / "Makefile").read_text()
