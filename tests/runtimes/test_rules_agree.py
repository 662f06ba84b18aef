"""What was measured to be wrong, or is refused by a runtime, is refused by `export --for` too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from runtime_matrix import Exported

from local_backend.export import runtime_results
from local_backend.export.options import RUNTIME_FORMATS
from local_backend.export.rules import find_other_models, is_measured, read_model_files

RULES = {"mlx_lm": "mlx", "onnxruntime_genai": "onnxruntime", "openvino": "openvino"}
"""Runtimes with rules of their own, by their names in the results; GGUF's are its writer's."""
FAULTS = sorted(
    (case, runtime)
    for case, cells in runtime_results.load_cells().items()
    for runtime, cell in cells.items()
    if runtime in RULES and cell.result in ("wrong", "refused")
)


@pytest.mark.parametrize(("case", "runtime"), FAULTS)
def test_a_fault_is_refused_or_its_family_is_not_called_measured(
    exported: Callable[[str], Exported], case: str, runtime: str
) -> None:
    files, name = read_model_files(str(exported(case).folder), None), RULES[runtime]
    found = find_other_models(files, name, RUNTIME_FORMATS[name][0])
    assert found or not is_measured(files, name)
