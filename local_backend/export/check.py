"""Check before training what runtimes will read: `python -m local_backend.export.check`.

The request on standard input has `model`, `lora` and `method` as in job.json, `exports`, a list of
`{"runtime", "format"}`, and `context`. Each reply is a finding: `{"runtime", "severity", "message",
"fix"}`. No weights are read.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from typing import Any

from local_backend.errors import TrainerError
from local_backend.export.features import find_features
from local_backend.export.gguf_check import check_gguf
from local_backend.export.options import ExportOptions
from local_backend.export.rules import (
    JOB_FILE_WORDS,
    check_export,
    limit_context,
    read_model_files,
)
from local_backend.process_exit import exit_now
from local_backend.replies import ReplyWriter


def check_exports(request: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """Yield what each runtime would take otherwise from the model that a job will leave."""
    from local_backend.models.weights import locate_tokenizer

    model = request["model"]
    tokenizer, source = locate_tokenizer(model["name"], model["weights"])
    for export in request["exports"]:
        runtime, form = export["runtime"], export["format"]
        options = ExportOptions(form, runtime, context=request["context"])
        try:
            files = read_model_files(source, planned_adapter(request, form, source))
            files = limit_context(files, options.context, form, JOB_FILE_WORDS)
            notes = check_export(files, options, JOB_FILE_WORDS)
            if form == "gguf":
                check_gguf(files, options.quantization, tokenizer)
        except TrainerError as error:
            yield _finding(runtime, "error", error.message, error.fix or "")
            continue
        for note in notes:
            yield _finding(runtime, "warning", note.text, note.fix)


def _finding(runtime: str, severity: str, message: str, fix: str) -> dict[str, str]:
    return {"runtime": runtime, "severity": severity, "message": message, "fix": fix}


def planned_adapter(request: Mapping[str, Any], form: str, source: str) -> dict[str, Any] | None:
    """Return what adapter_config.json will say; None where the export has no adapter.

    Raise TrainerError for a job that will leave none.
    """
    if form != "adapter":
        return None
    if request["method"] == "full":
        raise TrainerError(
            "A job that trains all weights leaves no adapter.", fix="set export.format: merged."
        )
    lora = request["lora"]
    planned: dict[str, Any] = {"r": lora["r"], "target_modules": lora["target_modules"]}
    has_experts = "experts" in find_features(read_model_files(source, None))
    if has_experts and lora["target_modules"] == "all-linear":
        planned["target_parameters"] = ["experts"]
    return planned


def main() -> int:
    """Check one job; return the exit status."""
    with ReplyWriter() as reply:
        for finding in check_exports(json.loads(sys.stdin.readline())):
            reply(finding)
    return reply.status


if __name__ == "__main__":
    exit_now(main())
