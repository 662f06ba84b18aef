"""Import a trained job's model into a cloud: merge it with a proof, check it, submit the import.

The merged model lies in the trained job's folder (`import/DTYPE/`) and is deleted with it. The
import is a job of its own.
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
from cloudft.backends.capabilities import ImportsStoredModels, ModelImporter, SupportsExport
from cloudft.backends.export_options import ExportOptions
from cloudft.backends.observer import SILENT, RunObserver
from cloudft.data.staging.manifest import build_manifest, parse_manifest
from cloudft.errors import BadDocument, CheckFailed, JobStateConflict, UsageError
from cloudft.jobs.lifecycle import refresh
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.storage.atomic_files import as_store_error, try_lock
from cloudft.storage.documents import decode
from cloudft.storage.home import Home
from cloudft.storage.store import RECORD_FILE, JobRecord
from cloudft.types import Finding

MERGED_FOLDER = "import"
NAME_SUFFIX = "-import"
NAME_KEPT = 50
"""Characters of the trained job's name that are kept."""
CONFIG = "config.json"
LOCK = ".lock"
NO_DATA = "none.jsonl"
"""Stands for the training data of a model that another tool trained: it is never read."""


def import_backend(job: LoadedJob, home: Home) -> Backend:
    """Return the backend that imports models, bound to the location of the job file."""
    [name] = (n for n in FOLLOW_UP_BACKENDS if issubclass(backend_class(n), ModelImporter))
    return make_backend(name, home).for_job(job)


def load_import_job(
    record: JobRecord, flags: Mapping[str, object], environ: Mapping[str, str]
) -> LoadedJob:
    """Return the trained job's own job file under the import's name, overlaid with `flags`."""
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
    """Merge the model of a completed job; return it ready for the import, and the warnings.

    Raise CheckFailed with every fault, before merging where that is possible, JobStateConflict,
    TrainerError.
    """
    job, findings = check_import(job, backend, home)
    exporter = _require_completed(record, backend)
    folder = record.folder / MERGED_FOLDER / dtype
    importer = import_backend(job, home)
    assert isinstance(importer, ModelImporter)
    with _exclusive_folder(record.folder / MERGED_FOLDER, observer):
        if not folder.is_dir():
            observer.on_activity(f"merging {record.id} and comparing it with the tuned model ...")
            exporter.export(record.backend_job_id or record.id, folder, ExportOptions(dtype=dtype))
        observer.on_activity("checking the merged model against the rules of the import ...")
        staged, more = importer.prepare_model(
            job, parse_manifest(record.manifest, record.folder / RECORD_FILE), folder
        )
    findings += more
    _raise_on_errors(findings)
    return staged, findings


def prepare_stored_model(
    uri: str, home: Home, flags: Mapping[str, object], environ: Mapping[str, str]
) -> tuple[StagedJob, list[Finding]]:
    """Return the import of a model that lies in S3 already, and the warnings.

    `flags` are fields of a job file: name, base_model, bedrock.import_role_arn. Raise CheckFailed
    with every fault, and UsageError where there is no model.
    """
    uri = f"{uri.rstrip('/')}/"
    spec = {"data": {"train": NO_DATA}, "bedrock": {"s3_uri": uri}}
    job = load_spec(spec, flags=flags, environ=environ)
    importer = import_backend(job, home)
    job = importer.with_stack_defaults(job)
    assert isinstance(importer, ImportsStoredModels)
    manifest = build_manifest(job.spec.customization_type, "", job.spec.seed, {}, ())
    staged, findings = importer.prepare_stored_model(job, manifest, uri)
    findings = [*job.findings, *findings]
    _raise_on_errors(findings)
    return staged, findings


@contextlib.contextmanager
def _exclusive_folder(folder: Path, observer: RunObserver) -> Iterator[None]:
    """Hold the lock of `folder`, so that one import of a job merges at a time."""
    with as_store_error("can't write the merged model", folder):
        folder.mkdir(exist_ok=True)
        lock = try_lock(folder / LOCK)
        if lock is None:
            observer.on_activity("another import of this job is merging; waiting for it ...")
            lock = try_lock(folder / LOCK, timeout_s=math.inf)
            assert lock is not None
    try:
        yield
    finally:
        os.close(lock)


def check_import(job: LoadedJob, backend: Backend, home: Home) -> tuple[LoadedJob, list[Finding]]:
    """Check everything about an import that can be checked before the model is merged.

    Return the job with its stack's values, and the warnings. Raise CheckFailed, and UsageError for
    a backend without weights.
    """
    if not isinstance(backend, SupportsExport):
        raise UsageError(
            f"the backend {backend.name} exports no weights",
            fix=catalogue.owned_weights_route(job.spec.base_model)
            or "import a job that is trained with --backend local or --backend sagemaker.",
        )
    importer = import_backend(job, home)
    job = importer.with_stack_defaults(job)
    assert isinstance(importer, ModelImporter)
    findings = [
        *job.findings,
        *importer.check(job),
        *_config_findings(job, importer),
        *_stand_in_findings(job),
    ]
    _raise_on_errors(findings)
    return job, findings


def _stand_in_findings(job: LoadedJob) -> list[Finding]:
    stand_in = job.spec.local.model
    if stand_in is None or job.model.is_open_weight:
        return []
    message = f"this imports {stand_in}, which was trained in place of {job.spec.base_model}"
    fix = "nothing to do if that small model is what you want."
    return [Finding("warning", "StandInImported", message, fix, field="local.model")]


def _require_completed(record: JobRecord, backend: Backend) -> SupportsExport:
    assert isinstance(backend, SupportsExport)
    state = refresh(record, backend).state
    if state.status != "Completed":
        raise JobStateConflict(
            f"{record.id} is {state.status}: it has left no model",
            fix=f"`cloudft watch {record.id}` waits for its end;"
            f" `cloudft resume {record.id}` resumes it.",
        )
    return backend


def _config_findings(job: LoadedJob, importer: ModelImporter) -> list[Finding]:
    """Check the architecture in the base model's config.json, when that file is on this machine."""
    name = job.spec.local.model or job.spec.base_model
    model = catalogue.find_model(name, base_dir=job.base_dir)
    for folder in model.folders:
        path = folder / CONFIG
        try:
            config = decode(path.read_bytes(), dict[str, Any], file=path)
        except (OSError, BadDocument):
            continue
        return importer.validate_config(job, config, str(path))
    return []


def _raise_on_errors(findings: list[Finding]) -> None:
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors:
        raise CheckFailed(errors[0].message, findings)
