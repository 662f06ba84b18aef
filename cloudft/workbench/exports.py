"""Exports that were started from a page. Each runs in a thread, and its trainer in a process.

The folder appears whole, when everything in it was verified, or not at all: also when the workbench
or the machine goes down (`Backend.export`).
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudft.backends.capabilities import SupportsExport
from cloudft.backends.export_options import DTYPES, RUNTIME_FORMATS, ExportOptions, choose_export
from cloudft.errors import CloudftError, JobStateConflict, UsageError
from cloudft.jobs.lifecycle import backend_for
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord
from cloudft.storage.typed_paths import read_typed_path


@dataclass(frozen=True)
class Export:
    """One export. It runs until it has a `proof` or an `error`. Times are time.time()."""

    folder: Path
    options: ExportOptions
    began_at: float
    ended_at: float | None = None
    proof: Mapping[str, Any] | None = None
    error: str = ""

    @property
    def is_running(self) -> bool:
        """Return whether it has not ended."""
        return self.ended_at is None


class Exports:
    """The last export of each job in this workbench."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._lock = threading.Lock()
        self._known: dict[str, Export] = {}

    def get(self, job_id: str) -> Export | None:
        """Return the last export of a job; None where there was none."""
        with self._lock:
            return self._known.get(job_id)

    def start(self, record: JobRecord, folder: str, dtype: str, runtime: str = "") -> Export:
        """Start to write a job's tuned model to a new folder, for a runtime if one is named.

        Raise UsageError for a folder, number format or runtime that can't be used, JobStateConflict
        while another export of the job runs.
        """
        out, options = _checked_folder(folder), _checked_options(dtype, runtime)
        backend = backend_for(record, self.home)
        if not isinstance(backend, SupportsExport):
            raise UsageError(
                f"a job on {record.backend} has no weights to export",
                fix="export a job that was trained on this machine or on SageMaker.",
            )
        export = Export(out, options, time.time())
        with self._lock:
            known = self._known.get(record.id)
            if known is not None and known.is_running:
                fix = "wait for its end; the job's page shows it."
                raise JobStateConflict(f"{record.id} is being exported", fix=fix)
            self._known[record.id] = export
        threading.Thread(
            target=self._run, args=(record, backend, export), name="export", daemon=True
        ).start()
        return export

    def _run(self, record: JobRecord, backend: SupportsExport, export: Export) -> None:
        proof: Mapping[str, Any] | None = None
        error = ""
        try:
            job_id = record.backend_job_id or record.id
            proof = backend.export(job_id, export.folder, export.options)
        except CloudftError as failure:
            error = " ".join(filter(None, (failure.message, failure.fix)))
        except Exception as failure:  # of any library: the page shows it
            error = repr(failure)
        with self._lock:
            self._known[record.id] = replace(export, proof=proof, error=error, ended_at=time.time())


def _checked_options(dtype: str, runtime: str) -> ExportOptions:
    """Return what a form says. A GGUF file holds its weights in a format of its own."""
    if dtype not in DTYPES:
        raise UsageError(f"there is no number format {dtype[:40]}", fix=f"use {DTYPES}.")
    if runtime and runtime not in RUNTIME_FORMATS:
        names = ", ".join(RUNTIME_FORMATS)
        raise UsageError(f"there is no runtime {runtime[:40]}", fix=f"use one of {names}.")
    has_dtype = not runtime or RUNTIME_FORMATS[runtime][0] != "gguf"
    return choose_export(runtime or None, None, dtype=dtype if has_dtype else None)


def _checked_folder(text: str) -> Path:
    """Return the folder to write. Raise UsageError."""
    path = read_typed_path(text)
    if not path.is_absolute():
        raise UsageError("the folder has no absolute path", fix="name one that begins with /.")
    # Of os.path: those of Path raise for a name that is too long.
    if os.path.lexists(path):
        raise UsageError(f"{path} exists", fix="name a new folder: nothing is overwritten.")
    if not os.path.isdir(path.parent):  # noqa: PTH112
        raise UsageError(f"there is no folder {path.parent}", fix="create it first.")
    return path
