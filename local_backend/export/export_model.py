"""Export one tuned model into a new folder, which appears when it is whole and proven.

The merged weights are written, read back from disk, and run on the job's held-out records. Their
logits must equal the adapter model's within a tolerance, and greedy decoding must give equal
tokens. Otherwise nothing is left. The folder's configuration is written for transformers 4 and 5,
and the proof names what an older reader would take otherwise.
"""

from __future__ import annotations

import os
from pathlib import Path

from local_backend.atomic_folders import atomic_folder
from local_backend.disk_full import raise_on_full_disk
from local_backend.errors import TrainerError
from local_backend.export.merged import write_merged
from local_backend.export.options import ExportOptions
from local_backend.export.proof import Proof
from local_backend.export.tuned_model import load_tuned_model, tuned_folder
from local_backend.job_dir import JobDir, write_json

PROOF = "export.json"
DISK_REMEDY = "free some space there, or name a folder on another disk."


def export_model(job_dir: JobDir, out: Path, options: ExportOptions) -> Proof:
    """Write the tuned model to `out` and return the proof.

    Raise TrainerError if `out` exists, or if verification fails.
    """
    tuned_folder(job_dir)
    if os.path.lexists(out):
        raise exists_error(out)
    tuned = load_tuned_model(job_dir)
    try:
        with (
            raise_on_full_disk("The exported model", out, DISK_REMEDY),
            atomic_folder(out) as temporary,
        ):
            proof = write_merged(tuned, temporary, options.dtype)
            write_json(temporary / PROOF, proof)
    except FileExistsError as error:
        raise exists_error(out) from error
    return proof


def exists_error(out: Path) -> TrainerError:
    """Return the error for an OUT that exists, or has appeared meanwhile. It is not touched."""
    return TrainerError(f"{out} exists already.", fix="name a folder that does not exist.")
