"""From a trained job to an import into Bedrock: merged with proof, checked, then a job of its own.

The merged model lies in the trained job's folder (`import/DTYPE/`) and goes with it.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cloudft import catalogue
from cloudft.backends import FOLLOW_UP_BACKENDS, backend_class, make_backend
from cloudft.backends.base import Backend, StagedJob
from cloudft.backends.capabilities import ModelImporter, SupportsExport
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.data.staging.manifest import parse_manifest
from cloudft.errors import BadDocument, CheckFailed, JobStateConflict, UsageError
from cloudft.jobs.lifecycle import refresh
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.storage.atomic_files import as_store_error, try_lock
from cloudft.storage.documents import decode
from cloudft.storage.home import Home
from cloudft.storage.store import RECORD_FILE, JobRecord
from cloudft.types import Finding, Severity

MERGED_FOLDER = "import"
NAME_SUFFIX = "-import"
NAME_KEPT = 50
"""Characters of the trained job's name that are kept."""
CONFIG = "config.json"
LOCK = ".lock"


def import_backend(job: LoadedJob, home: Home) -> Backend:
    """Return the backend that imports models, bound to the location of the job file."""
    [name] = (n for n in FOLLOW_UP_BACKENDS if issubclass(backend_class(n), ModelImporter))
    return make_backend(name, home).for_job(job)


def load_import_job(
    record: JobRecord, flags: Mapping[str, object], environ: Mapping[str, str]
) -> LoadedJob:
    """The trained job's own specification under the import's name, with `flags` over it."""
    spec = {**record.spec, "name": f"{record.name[:NAME_KEPT]}{NAME_SUFFIX}"}
    return load_spec(spec, flags=flags, environ=environ)


def merge_and_stage(
    record: JobRecord,
    backend: Backend,
    home: Home,
    job: LoadedJob,
    *,
    dtype: str,
    observer: RunObserver = SILENT,
) -> tuple[StagedJob, list[Finding]]:
    """The model of a completed job, merged and ready to be sent, and the warnings.

    `tell` is told what goes on. Raises CheckFailed with every fault, before merging where it can be
    known, JobStateConflict, TrainerError.
    """
    job, found = check_import(job, backend, home)
    exports = _require_completed(record, backend)
    folder = record.folder / MERGED_FOLDER / dtype
    into = import_backend(job, home)
    assert isinstance(into, ModelImporter)
    with _exclusive_folder(record.folder / MERGED_FOLDER, observer):
        if not folder.is_dir():
            observer.on_activity(f"merging {record.id} and comparing it with the tuned model ...")
            exports.export(record.backend_job_id or record.id, folder, dtype)
        observer.on_activity("checking the merged model against the rules of the import ...")
        staged, more = into.prepare_model(
            job, parse_manifest(record.manifest, record.folder / RECORD_FILE), folder
        )
    found += more
    _raise_on_errors(found)
    return staged, found


@contextlib.contextmanager
def _exclusive_folder(folder: Path, observer: RunObserver) -> Iterator[None]:
    """Work in `folder` while no other import of this job does; a killed one gives way at once."""
    with as_store_error("the merged model can't be written", folder):
        folder.mkdir(exist_ok=True)
        lock = try_lock(folder / LOCK)
        if lock is None:
            observer.on_activity("waiting for another import of this job, which is merging ...")
            lock = try_lock(folder / LOCK, timeout_s=math.inf)
            assert lock is not None
    try:
        yield
    finally:
        os.close(lock)


def check_import(job: LoadedJob, backend: Backend, home: Home) -> tuple[LoadedJob, list[Finding]]:
    """What stands in the way of an import that can be known before there is a model.

    Returns the job with what its stack says, and the warnings. Raises CheckFailed, and UsageError
    for a backend without weights.
    """
    if not isinstance(backend, SupportsExport):
        raise UsageError(
            f"the backend {backend.name} hands out no weights",
            fix="import a job that is trained with --backend local or --backend sagemaker.",
        )
    into = import_backend(job, home)
    job = into.with_stack_defaults(job)
    assert isinstance(into, ModelImporter)
    found = [
        *job.findings,
        *into.check(job),
        *_config_findings(job, into),
        *_stand_in_findings(job),
    ]
    _raise_on_errors(found)
    return job, found


def _stand_in_findings(job: LoadedJob) -> list[Finding]:
    stand_in = job.spec.local.model
    if stand_in is None or job.model.is_open_weight:
        return []
    message = f"what is imported is {stand_in}, which stands in for {job.spec.base_model}"
    fix = "none is needed if that small model is what you want."
    return [Finding("warning", "StandInImported", message, fix, field="local.model")]


def _require_completed(record: JobRecord, backend: Backend) -> SupportsExport:
    assert isinstance(backend, SupportsExport)
    state = refresh(record, backend).state
    if state.status != "Completed":
        raise JobStateConflict(
            f"{record.id} is {state.status}: it has left no model",
            fix=f"`cloudft watch {record.id}` waits for its end;"
            f" `cloudft resume {record.id}` goes on with it.",
        )
    return backend


def _config_findings(job: LoadedJob, into: ModelImporter) -> list[Finding]:
    """The faults of an architecture that can't be imported, when its config.json is here."""
    name = job.spec.local.model or job.spec.base_model
    model = catalogue.find_model(name, base_dir=job.base_dir)
    for place in (Path(weights.path) for weights in model.weights if weights.path):
        path = place / CONFIG
        try:
            config = decode(path.read_bytes(), dict[str, Any], file=path)
        except (OSError, BadDocument):
            continue
        return into.validate_config(job, config, str(path))
    return []


def _raise_on_errors(findings: list[Finding]) -> None:
    wrong: Severity = "error"
    errors = [finding for finding in findings if finding.severity == wrong]
    if errors:
        raise CheckFailed(errors[0].message, findings)
