"""Every family of the packed path in every runtime answers as `runtime_results.json` says."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest
import runtime_models
from runtime_matrix import RUNTIMES, Exported, interpreter, measure, record_cell

from local_backend.export import runtime_results


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("case", runtime_models.case_names())
def test_a_model_answers_as_recorded(
    exported: Callable[[str], Exported], case: str, runtime: str
) -> None:
    python = interpreter(runtime)
    if python is None:
        pytest.skip(f"no environment with {runtime}")
    cell = measure(exported(case), runtime, python)
    if os.environ.get("RECORD_RUNTIMES"):
        record_cell(case, runtime, cell)
    recorded = runtime_results.load_cells().get(case, {}).get(runtime)
    if recorded is None:
        pytest.skip(f"not recorded yet, and is: {cell}")
    # The numbers in the details differ between machines.
    assert (cell["result"], cell.get("layer")) == (recorded.result, recorded.layer), cell
