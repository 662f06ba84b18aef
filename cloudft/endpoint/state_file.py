"""Read the endpoint's state file. Its shapes are checked, and no path is taken from it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols.messages import Parameters
from cloudft.errors import BadDocument
from cloudft.storage.documents import decode

if TYPE_CHECKING:
    from cloudft.endpoint.state import StateData

VERSION = 1
IMPORTED_FOLDER = "imported"
"""The folder, beside the state file, that has a folder of each imported model."""
CUSTOM_FOLDER = "custom"
"""The same, of the models that CreateCustomModel made."""
LOCAL_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Ids of local jobs. They become names of folders: none may lead elsewhere."""
OBJECT_ID = re.compile(r"(file|ftjob)-[a-z0-9]{24}")
"""Ids of files and fine-tuning jobs of the OpenAI-compatible API, which name files and folders."""
RESOURCE_ID = re.compile(r"[a-z0-9]{12}")
"""The last part of ARNs, which becomes the name of a folder, too."""
CREATE_OPERATIONS = {
    "jobs": ("bedrock", "CreateModelCustomizationJob"),
    "imports": ("bedrock", "CreateModelImportJob"),
    "copies": ("bedrock", "CreateModelCopyJob"),
    "batches": ("bedrock", "CreateModelInvocationJob"),
    "evaluations": ("bedrock", "CreateEvaluationJob"),
    "training": ("sagemaker", "CreateTrainingJob"),
    "fine_tuning_jobs": ("bedrock-mantle", "CreateFineTuningJob"),
}
"""Collection -> the operation whose input the `request` of each resource in it is."""
KEYED_BY_ARN = (
    *("jobs", "models", "imported", "deployments", "throughputs"),
    *("imports", "copies", "batches", "evaluations", "profiles"),
)
StateDataT = TypeVar("StateDataT", bound="StateData")


class _Header(msgspec.Struct):
    version: int = VERSION
    """The files of cloudft's first versions have none."""


def read_state(file: Path, as_type: type[StateDataT]) -> StateDataT:
    """Return the content of a state file. Raises OSError, and BadDocument that names the field."""
    content = file.read_bytes()
    # The version first: the rest of a file of another version may have another shape.
    if decode(content, _Header, file=file).version != VERSION:
        decode(content, _Header, file=file, versions=(VERSION,))
    data = decode(content, as_type, file=file)
    for field, problem in _problems(data):
        raise BadDocument(
            f"{file.name} is damaged: {problem}",
            file=str(file),
            field=field,
            fix="restore it from a backup, or choose another folder.",
        )
    for kind, models in ((IMPORTED_FOLDER, data.imported), (CUSTOM_FOLDER, data.models)):
        for model in models.values():
            if model.folder is not None:
                # Beside this file, whatever the path in it: the state may have been moved.
                model.folder = str(file.parent.absolute() / kind / Path(model.folder).name)
    return data


def _problems(data: StateData) -> Iterator[tuple[str, str]]:
    """Yield each wrong field, and what is wrong with it."""
    yield from _arn_problems(data)
    yield from _object_id_problems(data)
    yield from _local_job_problems(data)
    for collection in ("imported", "models"):
        for arn, model in getattr(data, collection).items():
            if model.folder is not None and not RESOURCE_ID.fullmatch(Path(model.folder).name):
                yield (
                    f"{collection}.{arn}.folder",
                    f"{model.folder[:200]!r} is not a model's folder",
                )
    for collection, (service, operation) in CREATE_OPERATIONS.items():
        for key, resource in getattr(data, collection).items():
            for problem in _request_problems(service, operation, resource.request):
                yield f"{collection}.{key}.request", problem


def _object_id_problems(data: StateData) -> Iterator[tuple[str, str]]:
    for collection in ("openai_files", "fine_tuning_jobs"):
        for key, resource in getattr(data, collection).items():
            if resource.id != key or not OBJECT_ID.fullmatch(key):
                yield f"{collection}.{key}.id", f"{resource.id[:200]!r} is not its id"


def _local_job_problems(data: StateData) -> Iterator[tuple[str, str]]:
    for collection in ("jobs", "fine_tuning_jobs"):
        for key, job in getattr(data, collection).items():
            if job.local is not None and not LOCAL_JOB_ID.fullmatch(job.local):
                yield f"{collection}.{key}.local", f"{job.local[:200]!r} is not a job id"


def _arn_problems(data: StateData) -> Iterator[tuple[str, str]]:
    for collection in KEYED_BY_ARN:
        for arn, resource in getattr(data, collection).items():
            if resource.arn != arn or not RESOURCE_ID.fullmatch(arn.rpartition("/")[2]):
                yield f"{collection}.{arn}.arn", f"{resource.arn[:200]!r} is not its ARN"


def _request_problems(service: str, operation: str, request: Parameters) -> Iterator[str]:
    """Yield what has another type than the service model says.

    Unknown members are no problem: a newer cloudft may have written them.
    """
    from botocore.validate import ParamValidator

    shape = load_service_model(service).operation_model(operation).input_shape
    for line in ParamValidator().validate(dict(request), shape).generate_report().splitlines():
        if not line.startswith("Unknown parameter"):
            yield line
