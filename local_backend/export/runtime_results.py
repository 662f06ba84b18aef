"""Read what was measured of models in runtimes: `runtime_results.json`.

`make test-runtimes` measures it. A cell is `right` (prompt, probabilities, answer and end equal
those of transformers), `close` (equal answers, probabilities that are rounded), `wrong` in a layer,
or `refused` by the runtime or by cloudft's export.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PATH = Path(__file__).with_name("runtime_results.json")


@dataclass(frozen=True)
class Cell:
    """What one model gave in a runtime; `layer` where it was close or wrong, `by` where refused."""

    result: str
    layer: str | None = None
    by: str | None = None
    detail: str = ""


@functools.cache
def _read() -> dict[str, Any]:
    content: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
    return content


def forget() -> None:
    """Read the file again at the next call: it was written."""
    _read.cache_clear()


def load_cells() -> dict[str, dict[str, Cell]]:
    """Return all cells by model and runtime."""
    results = _read()["results"]
    return {
        case: {runtime: Cell(**cell) for runtime, cell in cells.items()}
        for case, cells in results.items()
    }


def load_runtimes() -> dict[str, dict[str, Any]]:
    """Return date and versions of the measurement by runtime."""
    runtimes: dict[str, dict[str, Any]] = _read()["runtimes"]
    return runtimes
