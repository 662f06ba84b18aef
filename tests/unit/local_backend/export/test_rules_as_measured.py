"""The rules of `export --for` refuse what a runtime was measured to compute otherwise."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "runtimes"))

import runtime_models

from local_backend.export.features import ModelFiles
from local_backend.export.options import RUNTIME_FORMATS
from local_backend.export.rules import find_other_models
from local_backend.export.runtime_results import load_cells
from local_backend.export.runtimes import RUNTIMES

ENGINES = {
    RUNTIMES[name].engine: name
    for name in ("mlx", "onnxruntime", "openvino", "transformers", "vllm")
}
"""Runtimes that read folders. What llama.cpp computes otherwise, the writer of GGUF refuses."""
OTHER_TOKENIZER = {("qwen2", "openvino"), ("qwen2, window", "openvino")}
"""A tokenizer that is not Qwen2's, as these models have, is read by Qwen2's pre-tokenizer there
(transformers 5.5.4). Qwen2's own tokenizer is right; `--verify` finds any other.
"""
CASES = sorted(
    (case, str(engine), cell.result)
    for case, cells in load_cells().items()
    for engine, cell in cells.items()
    if engine in ENGINES and (case, engine) not in OTHER_TOKENIZER
    if cell.result == "wrong" or (cell.result == "right" and "," in case)
)


@pytest.mark.parametrize(("case", "engine", "result"), CASES)
def test_what_was_wrong_is_refused_and_what_was_right_is_not(
    case: str, engine: str, result: str
) -> None:
    config = runtime_models.build_case(case)[0].config.to_dict()
    runtime = ENGINES[engine]
    found = find_other_models(ModelFiles(config), runtime, RUNTIME_FORMATS[runtime][0])
    assert bool(found) == (result == "wrong"), found
