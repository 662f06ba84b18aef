"""Every benchmark still runs: each is started with its smallest input.

They take minutes in all, so that `make test-ci` runs them and `make test` does not.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
HELPERS = {"smallest.py"}
SCRIPTS = sorted(
    path for path in (*BENCHMARKS.glob("*.py"), BENCHMARKS / "train") if path.name not in HELPERS
)
TIMEOUT_S = 300.0


@pytest.mark.benchmark_start
@pytest.mark.usefixtures("real_weights")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_benchmark_runs_on_its_smallest_input(script: Path, tmp_path: Path) -> None:
    results = BENCHMARKS / "RESULTS.md"
    before = results.read_bytes()
    programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [sys.executable, script, "--smallest"],
        cwd=BENCHMARKS.parent,
        env=os.environ | {"CLOUDFT_HOME": str(tmp_path / "home"), "PATH": programs},
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip(), "it printed no figures"
    assert "Traceback" not in done.stderr
    assert results.read_bytes() == before, "figures of the smallest input are not results"
