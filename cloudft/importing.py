"""From a trained job to an import into Bedrock: merged with proof, checked, then a job of its own.

The merged model lies in the trained job's folder (`import/DTYPE/`) and goes with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from cloudft import catalogue
from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import Backend, Exports, Imports, StagedJob
from cloudft.data.manifest import from_json
from cloudft.errors import CheckFailed, JobStateConflict, UsageError
from cloudft.home import Home
from cloudft.jobs import look
from cloudft.spec.load import LoadedJob, load_spec
from cloudft.store import Record
from cloudft.types import Finding, Severity

FOLDER = "import"
SUFFIX = "-import"
NAME_ROOM = 50
"""Characters of the trained job's name that are kept."""
CONFIG = "config.json"


def importer(home: Home) -> Backend:
    """The backend that takes models in."""
    return backend_by_name("import", home)


def job_of(record: Record, flags: Mapping[str, object], environ: Mapping[str, str]) -> LoadedJob:
    """The trained job's own specification under the import's name, with `flags` over it."""
    spec = {**record.spec, "name": f"{record.name[:NAME_ROOM]}{SUFFIX}"}
    return load_spec(spec, flags=flags, environ=environ)


def prepare(
    record: Record,
    backend: Backend,
    home: Home,
    job: LoadedJob,
    *,
    dtype: str,
    tell: Callable[[str], None] = lambda what: None,
) -> tuple[StagedJob, list[Finding]]:
    """The model of a completed job, merged and ready to be sent, and the warnings.

    `tell` is told what goes on. Raises CheckFailed with every fault, before merging where it can be
    known, JobStateConflict, TrainerError.
    """
    job, found = check(job, backend, home)
    exports = _completed(record, backend)
    folder = record.folder / FOLDER / dtype
    if not folder.is_dir():
        tell(f"merging {record.id} and comparing it with the tuned model ...")
        exports.export(record.backend_job_id or record.id, folder, dtype)
    tell("holding the merged model against Bedrock's rules ...")
    into = importer(home)
    assert isinstance(into, Imports)
    staged, more = into.take(job, from_json(record.manifest), folder)
    found += more
    _refuse(found)
    return staged, found


def check(job: LoadedJob, backend: Backend, home: Home) -> tuple[LoadedJob, list[Finding]]:
    """What stands in the way of an import that can be known before there is a model.

    Returns the job with what its stack says, and the warnings. Raises CheckFailed, and UsageError
    for a backend without weights.
    """
    if not isinstance(backend, Exports):
        raise UsageError(
            f"the backend {backend.name} hands out no weights",
            fix="import a job that is trained with --backend local or --backend sagemaker.",
        )
    into = importer(home)
    job = into.completed(job)
    assert isinstance(into, Imports)
    found = [*job.findings, *into.check(job), *_looked_at(job, into), *_stands_in(job)]
    _refuse(found)
    return job, found


def _stands_in(job: LoadedJob) -> list[Finding]:
    stand_in = job.spec.local.model
    if stand_in is None or job.model.open_weight:
        return []
    message = f"what is imported is {stand_in}, which stands in for {job.spec.base_model}"
    fix = "none is needed if that small model is what you want."
    return [Finding("warning", "StandInImported", message, fix, field="local.model")]


def _completed(record: Record, backend: Backend) -> Exports:
    assert isinstance(backend, Exports)
    state = look(record, backend).state
    if state.status != "Completed":
        raise JobStateConflict(
            f"{record.id} is {state.status}: it has left no model",
            fix=f"`cloudft watch {record.id}` waits for its end;"
            f" `cloudft resume {record.id}` goes on with it.",
        )
    return backend


def _looked_at(job: LoadedJob, into: Imports) -> list[Finding]:
    """The faults of an architecture that can't be imported, when its config.json is here."""
    name = job.spec.local.model or job.spec.base_model
    model = catalogue.find(name, base_dir=job.base_dir)
    for place in (Path(weights.path) for weights in model.weights if weights.path):
        path = place / CONFIG
        try:
            config: dict[str, Any] = orjson.loads(path.read_bytes())
        except (OSError, ValueError):
            continue
        return into.look_at(job, config, str(path))
    return []


def _refuse(findings: list[Finding]) -> None:
    wrong: Severity = "error"
    errors = [finding for finding in findings if finding.severity == wrong]
    if errors:
        raise CheckFailed(errors[0].message, findings)
