"""The models that jobs left, as base models of later jobs: `job:` and an id, its prefix or a name.

A job of this machine has its model in its folder. A job of Bedrock has a custom model there, whose
ARN is the base model of a later job.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import msgspec

from cloudft.catalogue.model import Lifecycle, Model, Weights
from cloudft.errors import CloudftError, UnknownModel
from cloudft.storage.artifacts import MODEL, RESULT, is_complete
from cloudft.storage.documents import decode
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store

PREFIX = "job:"
START = "start"
"""The folder in a job's folder with the models of the jobs that it started from."""
BLOCK_BYTES = 1 << 20


class _Weights(msgspec.Struct):
    kind: str
    distribution: str | None = None
    module: str | None = None
    file: str | None = None
    hub_id: str | None = None
    path: str | None = None
    job: str | None = None
    method: str | None = None
    sha256: str | None = None
    name: str | None = None
    base: list[_Weights] = []


class _Model(msgspec.Struct):
    name: str
    weights: list[_Weights]


class _Request(msgspec.Struct):
    method: str
    model: _Model


class _Ending(msgspec.Struct):
    status: str


class _BedrockResult(msgspec.Struct, rename="camel"):
    output_model_arn: str | None = None


def find_trained_job(reference: str) -> JobRecord:
    """Return the job that the text behind `job:` names. Raise UnknownModel."""
    try:
        return Store(Home.from_environ().jobs).find_by_reference(reference)
    except CloudftError as error:
        raise UnknownModel(
            error.message, fix=error.fix or "`cloudft list` shows the jobs"
        ) from error


def find_kept_model(job_id: str, find: Callable[[str], Model]) -> Model | None:
    """Return the model of a job that was deleted, from a later job's folder; None if none has it.

    Raise UnknownModel.
    """
    for kept in sorted(Home.from_environ().jobs.glob(f"*/{START}/{job_id}")):
        folder = kept.parents[1]
        try:
            content = (folder / "job.json").read_bytes()
            request = decode(content, _Request, file=folder / "job.json")
        except (OSError, CloudftError):
            continue
        for weights in map(partial(_as_weights, folder=folder), request.model.weights):
            for one in _chain(weights):
                if one.job == job_id and one.name:
                    return _as_base_model(one, find(_chain(weights)[-1].name or one.name))
    return None


def _chain(weights: Weights) -> list[Weights]:
    """Return the models of the jobs behind each other, the last one's first."""
    first = weights.base[0] if weights.base else None
    rest = _chain(first) if first is not None and first.kind == "job" else []
    return [weights, *rest]


def custom_model_arn(record: JobRecord) -> str:
    """Return the ARN of the custom model that a job of Bedrock left. Raise UnknownModel."""
    path = record.folder / "artifacts" / RESULT
    if record.request.get("place", {}).get("api") == "openai":
        raise UnknownModel(
            f"the model of {record.id} can't be trained further: Bedrock's OpenAI-compatible API"
            " tunes base models",
            fix=f"set base_model: {record.base_model}",
        )
    try:
        arn = decode(path.read_bytes(), _BedrockResult, file=path).output_model_arn
    except FileNotFoundError:
        arn = None
    except (OSError, CloudftError) as error:
        raise UnknownModel(f"{path} can't be read: {error}", fix="restore it") from error
    if not arn:
        raise UnknownModel(
            f"{record.id} has left no custom model that this machine knows of",
            fix=f"`cloudft watch {record.id}` waits for its end and fetches its result",
        )
    return arn


def trained_model_of(record: JobRecord, find: Callable[[str], Model]) -> Model:
    """Return the model that a job of this machine left, as a base model.

    `find` returns the model of a name. Raise UnknownModel for a job that has left none.
    """
    folder = record.folder / "artifacts" / MODEL
    _check_has_completed(record, folder)
    path = record.folder / "job.json"
    try:
        request = decode(path.read_bytes(), _Request, file=path)
        digest = _folder_digest(folder)
    except (OSError, CloudftError) as error:
        raise UnknownModel(
            f"the model of {record.id} can't be read: {error}", fix="restore the job's folder"
        ) from error
    weights = Weights(
        kind="job",
        job=record.id,
        path=str(folder),
        method=request.method,
        sha256=digest,
        name=request.model.name,
        base=tuple(_as_weights(one, record.folder) for one in request.model.weights),
    )
    return _as_base_model(weights, _started_from(record, request, find))


def _as_base_model(weights: Weights, started_from: Model) -> Model:
    """Return a job's model, with the facts of the model that it started from."""
    life = Lifecycle("active", started_from.sources[0], note=f"trained by {weights.job}")
    return replace(
        started_from,
        alias=f"{PREFIX}{weights.job}",
        title=f"the model of {weights.job}",
        bedrock_id=None,
        other_ids=(),
        lifecycle=life,
        weights=(weights,),
    )


def _check_has_completed(record: JobRecord, folder: Path) -> None:
    """Raise UnknownModel unless the job has completed here and left a model."""
    if record.backend != "local":
        raise UnknownModel(
            f"{record.id} was trained by {record.backend}: only a model that was trained on this"
            " machine or by Bedrock can be trained further",
            fix=f"`cloudft export {record.id} FOLDER` writes its model; name that folder",
        )
    path = record.folder / "ended.json"
    try:
        status = decode(path.read_bytes(), _Ending, file=path).status
    except (OSError, CloudftError):
        status = "not completed"
    if status == "Completed" and is_complete(folder.parent) and folder.is_dir():
        return
    remedies = {
        "not completed": f"`cloudft watch {record.id}` waits for its end",
        "Completed": "restore the job's folder, or train it again",
    }
    resume = f"`cloudft resume {record.id}` continues it"
    lost = status == "Completed"
    what = "had completed, but its model is gone" if lost else f"is {status}: it has left no model"
    raise UnknownModel(f"{record.id} {what}", fix=remedies.get(status, resume))


def _started_from(record: JobRecord, request: _Request, find: Callable[[str], Model]) -> Model:
    """Return the facts of the model that the job itself started from."""
    local = record.spec.get("local")
    stand_in = local.get("model") if isinstance(local, Mapping) else None
    first = request.model.weights[0] if request.model.weights else None
    names = [str(stand_in or record.base_model), request.model.name]
    while first is not None and first.kind == "job" and first.name:
        names.append(first.name)  # the job that it started from may be gone
        first = first.base[0] if first.base else None
    for name in names:
        try:
            return find(name)
        except UnknownModel as error:
            last = error
    raise last


def _as_weights(one: _Weights, folder: Path) -> Weights:
    """Return a location in job.json; the model of an earlier job lies in this job's folder."""
    values: dict[str, Any] = msgspec.structs.asdict(one)
    if one.kind == "job":
        values["path"] = str(folder / START / str(one.job))
    return Weights(**{**values, "base": tuple(_as_weights(b, folder) for b in one.base)})


def _folder_digest(folder: Path) -> str:
    """Return the SHA-256 of names and contents, as the trainer computes it. Raise OSError."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        status = path.stat()
        content = _file_digest(str(path), status.st_size, status.st_mtime_ns)
        digest.update(f"{path.name}\0{content}\n".encode())
    return digest.hexdigest()


@lru_cache(maxsize=1024)
def _file_digest(path: str, _size: int, _changed: int) -> str:
    """Return the digest of a file in that state: planned twice, it is read once."""
    digest = hashlib.sha256()
    with open(path, "rb") as stream:  # noqa: PTH123
        while block := stream.read(BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()
