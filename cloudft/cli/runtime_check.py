"""The options `--verify` and `--runtime-python`: run an export in its runtime."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cloudft.backends.export_options import PROOF
from cloudft.cli.progress import task_progress
from cloudft.errors import TrainerError, UsageError

if TYPE_CHECKING:
    from cloudft.backends.base import Backend
    from cloudft.cli.options import Console
    from cloudft.evaluate.runtime_proof import RuntimeProof
    from cloudft.storage.store import JobRecord

REMEDIES = {
    "template": "render prompts with the template that the export has (llama.cpp's server:"
    " --jinja), or send the runtime prompts that are rendered already.",
    "tokenizer": "send the runtime token numbers instead of texts, or use another runtime.",
    "logits": "use another runtime, or export in float32 to see whether rounding is the reason.",
    "end tokens": "name the model's end tokens as stop tokens in the runtime's own settings.",
    "decoding": "repeat it with a float32 export: near ties are decided by rounding.",
}
"""What helps where a layer differs, by its name in local_backend/export/runtime_comparison.py."""


def runtime_check_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--verify` and `--runtime-python` to a command."""
    python = click.option(
        "--runtime-python",
        type=click.Path(exists=True, dir_okay=False, path_type=Path),
        metavar="PYTHON",
        help="Interpreter of the environment that has the runtime; cloudft's own if not given.",
    )
    verify = click.option(
        "--verify",
        is_flag=True,
        help="Answer held-out records in the runtime too, and compare. A DIR that is an export"
        " already is verified as it is.",
    )
    return verify(python(function))


def is_export(out: Path) -> bool:
    """Return whether a folder is an export already."""
    return (out / PROOF).is_file()


def choose_runtime(out: Path, named: str | None) -> str:
    """Return the runtime that was named, or that the export was made for, or that reads it."""
    content = json.loads((out / PROOF).read_text(encoding="utf-8"))
    by_file = "llama.cpp" if any(out.glob("*.gguf")) else "transformers"
    return str(named or content.get("runtime") or by_file)


def require_verifiable(record: JobRecord, backend: Backend) -> None:
    """Raise UsageError for a job whose export can't be compared in a runtime, before it is made."""
    from cloudft.backends.capabilities import SupportsRuntimeCheck
    from cloudft.evaluate.held_out import has_held_out_data
    from cloudft.storage.home import Home

    if not isinstance(backend, SupportsRuntimeCheck):
        raise UsageError(
            f"a job on {record.backend} has no tuned model on this machine to compare with",
            fix="leave out --verify.",
        )
    if not has_held_out_data(record, Home.from_environ()):
        raise UsageError(
            f"{record.id} has no held-out data to compare the runtime on",
            fix="leave out --verify (the export itself is compared on training records), or compare"
            f" on a file: `cloudft evaluate {record.id} --data FILE --engine llama.cpp`",
        )


def verify_in_runtime(
    record: JobRecord,
    backend: Backend,
    out: Path,
    named: str | None,
    python: Path | None,
    console: Console,
) -> RuntimeProof:
    """Run the export in `out` in a runtime. Raise TrainerError where it answers otherwise.

    The proof is in the folder's export.json in both cases.
    """
    from cloudft.backends.capabilities import SupportsRuntimeCheck
    from cloudft.evaluate.runtime_proof import RuntimeCheck, describe_proof, prove_in_runtime
    from cloudft.storage.home import Home

    require_verifiable(record, backend)
    assert isinstance(backend, SupportsRuntimeCheck)
    check = RuntimeCheck(choose_runtime(out, named), str(python or sys.executable))
    with task_progress(console) as progress:
        home = Home.from_environ()
        proof = prove_in_runtime(record, backend, home, out.absolute(), check, progress)
    difference = proof["difference"]
    if difference is None:
        return proof
    raise TrainerError(
        f"{proof['runtime']} does not answer as the tuned model does: {difference['layer']}:"
        f" {difference['detail']}; held-out record {difference['record'] + 1}"
        f"\n{describe_proof(proof)}",
        fix=REMEDIES[difference["layer"]],
    )
