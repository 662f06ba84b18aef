"""The endpoint's state file, read back: its shapes are checked, and no path is taken from it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from cloudft.aws.request_validation import load_service_model
from cloudft.errors import BadDocument
from cloudft.storage.documents import decode

if TYPE_CHECKING:
    from cloudft.endpoint.state import StateData

VERSION = 1
IMPORTED_FOLDER = "imported"
"""The folder, beside the file, that holds what imported models are made of."""
LOCAL_JOB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
"""Of ids that become the name of a folder."""
RESOURCE_ID = re.compile(r"[a-z0-9]{12}")
CREATE_OPERATIONS = {
    "jobs": ("bedrock", "CreateModelCustomizationJob"),
    "imports": ("bedrock", "CreateModelImportJob"),
    "copies": ("bedrock", "CreateModelCopyJob"),
    "batches": ("bedrock", "CreateModelInvocationJob"),
    "training": ("sagemaker", "CreateTrainingJob"),
}
"""Whose input the requests are that are kept with things of each kind."""
KEYED_BY_ARN = (
    *("jobs", "models", "imported", "deployments", "throughputs"),
    *("imports", "copies", "batches"),
)
StateDataT = TypeVar("StateDataT", bound="StateData")


class _Header(msgspec.Struct):
    version: int = VERSION
    """Files of the first versions of cloudft have none."""


def read_state(file: Path, as_type: type[StateDataT]) -> StateDataT:
    """Return what a state file holds. Raise OSError, and BadDocument that names the field."""
    content = file.read_bytes()
    if decode(content, _Header, file=file).version != VERSION:
        decode(content, _Header, file=file, versions=(VERSION,))
    contents = decode(content, as_type, file=file)
    for field, why in _problems(contents):
        raise BadDocument(
            f"{file.name} is damaged: {why}",
            file=str(file),
            field=field,
            fix="restore it from a backup, or name another folder.",
        )
    for model in contents.imported.values():
        if model.folder is not None:  # the state may have been moved here
            model.folder = str(file.parent.absolute() / IMPORTED_FOLDER / Path(model.folder).name)
    return contents


def _problems(contents: StateData) -> Iterator[tuple[str, str]]:
    """Yield the field and what is wrong with it."""
    for kind in KEYED_BY_ARN:
        for arn, thing in getattr(contents, kind).items():
            if thing.arn != arn or not RESOURCE_ID.fullmatch(arn.rpartition("/")[2]):
                yield f"{kind}.{arn}.arn", f"{thing.arn[:200]!r} is not the ARN of it"
    for arn, job in contents.jobs.items():
        if job.local is not None and not LOCAL_JOB_ID.fullmatch(job.local):
            yield f"jobs.{arn}.local", f"{job.local[:200]!r} is no id of a job"
    for arn, model in contents.imported.items():
        if model.folder is not None and not RESOURCE_ID.fullmatch(Path(model.folder).name):
            yield f"imported.{arn}.folder", f"{model.folder[:200]!r} is no folder of a model"
    for kind, (service, operation) in CREATE_OPERATIONS.items():
        for key, thing in getattr(contents, kind).items():
            for why in _request_problems(service, operation, thing.request):
                yield f"{kind}.{key}.request", why


def _request_problems(service: str, operation: str, request: Mapping[str, Any]) -> Iterator[str]:
    """Yield what is of another type than the service model says. Unknown members may be newer."""
    from botocore.validate import ParamValidator

    shape = load_service_model(service).operation_model(operation).input_shape
    for line in ParamValidator().validate(dict(request), shape).generate_report().splitlines():
        if not line.startswith("Unknown parameter"):
            yield line
