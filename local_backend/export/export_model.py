"""Export one tuned model into a new folder, which appears when it is whole and proven.

What is written is read back from disk and run on the job's held-out records. The logits must equal
the tuned model's within a tolerance, and greedy decoding must give equal tokens. Otherwise nothing
is left. What the named runtime would take otherwise is refused before the model is loaded.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from local_backend.atomic_folders import atomic_folder
from local_backend.disk_full import raise_on_full_disk
from local_backend.errors import TrainerError
from local_backend.export.adapter import check_base, write_adapter
from local_backend.export.features import ModelFiles
from local_backend.export.gguf_check import check_gguf
from local_backend.export.gguf_folder import write_gguf_folder
from local_backend.export.merged import write_merged
from local_backend.export.mlx_folder import check_mlx, write_mlx
from local_backend.export.options import ExportOptions
from local_backend.export.proof import Proof
from local_backend.export.provenance import Origin, file_digests, find_origin, library_versions
from local_backend.export.rules import (
    check_export,
    limit_context,
    read_model_files,
    read_otherwise,
    run_command,
)
from local_backend.export.tuned_model import TunedModel, load_tuned_model, tuned_folder
from local_backend.job_dir import JobDir, write_json
from local_backend.models.lora import ADAPTER_CONFIG
from local_backend.models.weights import locate_weights
from local_backend.settings import read_settings

PROOF = "export.json"
DISK_REMEDY = "free some space there, or name a folder on another disk."
WRITERS: dict[str, Callable[[TunedModel, Path, ExportOptions], Proof]] = {
    "merged": write_merged,
    "adapter": write_adapter,
    "gguf": write_gguf_folder,
    "mlx": write_mlx,
}


class ExportRecord(Proof):
    """export.json: the proof, what the export was made from, and who reads it otherwise.

    `notes` are about the named `runtime`; `readOtherwise` has what each runtime would take
    otherwise. `run` is a command that runs the folder DIR, `files` are the SHA-256 of its files.
    """

    runtime: str | None
    run: str | None
    notes: list[str]
    readOtherwise: dict[str, list[str]]
    madeFrom: Origin
    files: dict[str, str]
    versions: dict[str, str]


def export_model(job_dir: JobDir, out: Path, options: ExportOptions) -> ExportRecord:
    """Write the tuned model to `out` and return what export.json says of it.

    Raise TrainerError if `out` exists, if the named runtime would run another model, or if
    verification fails.
    """
    tuned_folder(job_dir)
    if os.path.lexists(out):
        raise exists_error(out)
    files, notes = check_options(job_dir, options)
    _require_room_for_folder(out)
    tuned = load_tuned_model(job_dir)
    try:
        with (
            raise_on_full_disk("The exported model", out, DISK_REMEDY),
            atomic_folder(out) as temporary,
        ):
            proof = WRITERS[options.format](tuned, temporary, options)
            record: ExportRecord = {
                **proof,
                "runtime": options.runtime,
                "run": run_command(options, files),
                "notes": [*notes, *summary_notes(proof)],
                "readOtherwise": read_otherwise(files, options.format),
                "madeFrom": find_origin(tuned),
                "files": file_digests(temporary),
                "versions": library_versions(),
            }
            write_json(temporary / PROOF, record)
    except (FileExistsError, NotADirectoryError) as error:
        raise exists_error(out) from error
    return record


def _require_room_for_folder(out: Path) -> None:
    """Raise TrainerError where no folder can be made, before the model is loaded."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()
    except (FileExistsError, NotADirectoryError) as error:
        raise exists_error(out) from error
    except OSError as error:
        raise TrainerError(
            f"{out} can't be made: {error.strerror}.",
            fix="name a folder in one that you may write into.",
        ) from error


def summary_notes(proof: Proof) -> list[str]:
    """Return what a GGUF file can't hold, as sentences; nothing for the other formats."""
    summary: Any = proof.get("gguf")
    return list(summary["notes"]) if summary else []


def check_options(job_dir: JobDir, options: ExportOptions) -> tuple[ModelFiles, list[str]]:
    """Return what the model's files say, and notes on the named runtime. Raise TrainerError."""
    settings, tuned = read_settings(job_dir), tuned_folder(job_dir)
    base = locate_weights(settings.model_name, settings.weights)
    adapter = None
    if options.format == "adapter":
        check_base(base, settings.method, options)
        adapter = json.loads((tuned / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    whole = str(tuned) if settings.method == "full" else base
    files = limit_context(read_model_files(whole, adapter), options.context, options.format)
    if options.format == "gguf":
        check_gguf(files, options.quantization, str(tuned))
    if options.format == "mlx":
        check_mlx(files, options.quantization)
    return files, [note.text for note in check_export(files, options)]


def exists_error(out: Path) -> TrainerError:
    """Return the error for an OUT that exists, or has appeared meanwhile. It is not touched."""
    if not os.path.lexists(out):  # of what it would be in, something is no folder
        return TrainerError(
            f"{out} can't be made: one of the folders above it is a file.",
            fix="name a folder that does not exist, in one that does.",
        )
    return TrainerError(f"{out} exists already.", fix="name a folder that does not exist.")
