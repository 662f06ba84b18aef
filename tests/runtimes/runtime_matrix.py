"""Run one model in one runtime, compare it with transformers, and keep the results.

The results are `local_backend/export/runtime_results.json`, which the documentation shows and which
the rules of `export --for` are compared with. `RECORD_RUNTIMES=1` writes them.
"""

from __future__ import annotations

import datetime
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import runtime_models

from local_backend.errors import TrainerError
from local_backend.export import runtime_results
from local_backend.export.engine_client import EngineProcess, EngineRefused
from local_backend.export.engines import run
from local_backend.export.runtime_comparison import (
    TOLERANCE,
    RuntimeRecord,
    find_difference,
)

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ("llama_cpp", "mlx_lm", "onnxruntime_genai", "openvino", "vllm")
CLOSE = 0.05
"""Difference of a log-probability up to which a runtime is called close, if all answers are equal:
it rounds, or approximates an activation. Lost settings give far more.
"""
SHORTENED = "beyond the file's context"
"""Words for a GGUF file that `export` limits to the length that llama.cpp computes rightly."""
MAX_DETAIL = 200
"""Characters of a runtime's own words in the results."""


@dataclass(frozen=True)
class Exported:
    """A case as `export` writes it, and the prompts that it is measured with."""

    folder: Path
    conversations: Sequence[Sequence[Mapping[str, str]]]


def interpreter(runtime: str) -> str | None:
    """Return the interpreter of a runtime's environment; None where it was not made.

    xllamacpp is in the environment of the tests; `CLOUDFT_PYTHON_NAME` names another than
    `.venv-runtimes-NAME` has.
    """
    if runtime == "llama_cpp":
        return sys.executable
    default = ROOT / f".venv-runtimes-{runtime}" / "bin" / "python"
    python = Path(os.environ.get(f"CLOUDFT_PYTHON_{runtime.upper()}", default))
    return str(python) if python.exists() else None


def export_for_runtimes(case: str, out: Path) -> Exported:
    """Write a case's folder."""
    runtime_models.export_case(case, out / "model")
    return Exported(out / "model", runtime_models.CONVERSATIONS)


def model_for(runtime: str, exported: Exported) -> Path:
    """Return what a runtime loads: the folder, or a GGUF file made of it. Raise TrainerError."""
    if runtime != "llama_cpp":
        return exported.folder
    from local_backend.export.gguf import write_gguf

    path = exported.folder.with_name("model.gguf")
    write_gguf(exported.folder, path, "f32")
    return path


def run_records(
    engine: Any, exported: Exported, ours: Sequence[RuntimeRecord] | None
) -> list[RuntimeRecord]:
    """Return what an engine makes of the conversations; prompts and answers are `ours`."""
    records: list[RuntimeRecord] = []
    for number, messages in enumerate(exported.conversations):
        prompt = engine.render({"messages": messages})
        given = ours[number] if ours else None
        ids = given["prompt"] if given else prompt
        made = engine.answer(ids, runtime_models.ANSWER)
        scored = [*ids, *(given or {"answer": made["ids"]})["answer"]]
        records.append(
            {
                "prompt": prompt,
                "plain": engine.render({"text": exported_text(exported, ids)}),
                "answer": made["ids"],
                "text": made["text"],
                "finish": made["finish"],
                "scores": engine.score(scored, 1),
            }
        )
    return records


def exported_text(exported: Exported, ids: Sequence[int]) -> str:
    """Return the text of a prompt's tokens."""
    from transformers import AutoTokenizer

    text: str = AutoTokenizer.from_pretrained(exported.folder).decode(ids)
    return text


def measure(exported: Exported, runtime: str, python: str) -> dict[str, str]:
    """Return one cell: `right`, `close`, `wrong` or `refused`, with the layer and words."""
    reference = run.load_engine("transformers", exported.folder, exported.folder)
    ours = run_records(reference, exported, None)
    try:
        model = model_for(runtime, exported)
        with EngineProcess(runtime, model, python) as engine:
            keep_versions(runtime, engine.versions)
            theirs = run_records(engine, exported, ours)
    except EngineRefused as error:
        detail = " ".join(str(error).replace(str(exported.folder.parent), "DIR").split())
        by = "cloudft" if SHORTENED in detail else runtime
        return {"result": "refused", "by": by, "detail": detail[:MAX_DETAIL]}
    except TrainerError as error:
        return {"result": "refused", "by": "cloudft", "detail": str(error)[:MAX_DETAIL]}
    difference = find_difference(ours, theirs, TOLERANCE["float32"])
    if difference is None:
        return {"result": "right"}
    if find_difference(ours, theirs, CLOSE) is None:
        return {"result": "close", "layer": difference.layer, "detail": difference.detail}
    return {"result": "wrong", "layer": difference.layer, "detail": difference.detail}


_versions: dict[str, dict[str, str]] = {}


def keep_versions(runtime: str, versions: dict[str, str]) -> None:
    """Keep the versions that a runtime named, for the results."""
    _versions[runtime] = versions


def record_cell(case: str, runtime: str, cell: Mapping[str, str]) -> None:
    """Write one cell of the results, with versions and date."""
    path = runtime_results.PATH
    results: dict[str, Any] = {"runtimes": {}, "results": {}}
    if path.exists():
        results = json.loads(path.read_text(encoding="utf-8"))
    if runtime in _versions:
        today = datetime.datetime.now(datetime.timezone.utc).date().isoformat()
        results["runtimes"][runtime] = {"date": today, "versions": _versions[runtime]}
    results["results"].setdefault(case, {})[runtime] = dict(cell)
    text = json.dumps(results, indent=1, sort_keys=True, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")
    runtime_results.forget()
