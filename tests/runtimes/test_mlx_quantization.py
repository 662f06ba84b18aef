"""`--quantize q4` and `q8` for mlx are bit for bit what mlx-lm itself makes of the same model."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import runtime_models
from runtime_matrix import Exported, interpreter

from local_backend.export.mlx_folder import quantize_folder
from local_backend.export.runtime_results import load_cells

PROGRAM = Path(__file__).with_name("compare_mlx_quantization.py")
REFUSED = {"granitemoe", "qwen2_moe", "qwen3_moe"}
"""Their experts' scales are not stacked by mlx-lm: `check_mlx` refuses them."""
FAMILIES = sorted(
    case
    for case, cells in load_cells().items()
    if "," not in case and case not in REFUSED and cells["mlx_lm"].result in ("right", "close")
)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("case", FAMILIES)
def test_every_tensor_is_that_of_mlx(
    exported: Callable[[str], Exported], tmp_path: Path, case: str, bits: int
) -> None:
    python = interpreter("mlx_lm")
    if python is None:
        pytest.skip("no environment with mlx_lm")
    assert case in runtime_models.case_names()
    folder, ours = exported(case).folder, tmp_path / "ours"
    ours.mkdir()
    counts = quantize_folder(folder, ours, bits)
    done = subprocess.run(
        [python, str(PROGRAM), str(folder), str(ours)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert not found["differing"] and found["equal"] > counts["quantized"], found
    # Routers, and what mlx-lm computes with no layer that can be quantized.
    assert all(".gate" in path or ".router" in path for path in found["onlyByMlx"]), found
