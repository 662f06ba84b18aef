"""Build the calls that create a job of the OpenAI-compatible API. Pure.

Sources: Bedrock user guide, fine-tuning-openai-apis, 2026-11; OpenAI API reference, "Files" and
"Fine-tuning". The API has no client token, no tags and no name of a job. What identifies a job of
cloudft is the name of its training file, which has the job's id, and so follows from all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.backends.aws_base import requests
from cloudft.backends.aws_base.api_call import ApiCall
from cloudft.backends.base import StagedJob
from cloudft.backends.bedrock import request
from cloudft.spec.load import LoadedJob
from cloudft.types import is_job_id, job_id

API = "openai"
"""Value of `api` in the location of such a job: it leads from a record to this backend."""
SERVICE = "bedrock-mantle"
PURPOSE = "fine-tune"
HYPERPARAMETERS = {
    "epochCount": "n_epochs",
    "batchSize": "batch_size",
    "learningRateMultiplier": "learning_rate_multiplier",
}
"""The API's name of each hyperparameter of `reinforcement.hyperparameters`."""
FILE_SUFFIX = ".train.jsonl"
UNLESS_THERE = "a file of that name and size is there"
UNLESS_CREATED = "a job with that training file is there"


def location_of(job: LoadedJob) -> dict[str, str | None]:
    """Return Region, profile and endpoint of the job, and which API it is of."""
    return {**request.location_of(job), "api": API}


def file_name(name: str, role: str = "train") -> str:
    """Return the name under which a job's file is uploaded."""
    return f"{name}.{role}.jsonl"


def job_of_file(filename: str) -> str | None:
    """Return the id of the job whose training file has that name; None for any other file."""
    name = filename.removesuffix(FILE_SUFFIX)
    return name if name != filename and is_job_id(name) else None


def hyperparameters_of(job: LoadedJob) -> dict[str, int | float]:
    """Return the job's hyperparameters that the API has. Unset ones are the service's own."""
    section = job.spec.reinforcement
    given = {} if section is None else section.hyperparameters
    return {
        name: value
        for name, value in given.items()
        if name in HYPERPARAMETERS and not isinstance(value, str)
    }


def create_parameters(job: LoadedJob, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the parameters of CreateFineTuningJob. `files` has the id of each file by role."""
    section = job.spec.reinforcement
    assert section is not None
    reinforcement: dict[str, Any] = {
        "grader": {"type": "lambda", "lambda": {"function": section.lambda_arn}}
    }
    if given := hyperparameters_of(job):
        named = {HYPERPARAMETERS[name]: value for name, value in given.items()}
        reinforcement["hyperparameters"] = named
    parameters: dict[str, Any] = {
        "model": request.base_model_identifier(job),
        "training_file": files["train"],
        "method": {"type": "reinforcement", "reinforcement": reinforcement},
    }
    if "validation" in files:
        parameters["validation_file"] = files["validation"]
    return parameters


def request_token(staged: StagedJob) -> str:
    """Return the name of the request: 32 hex digits that follow from all of it and of the data."""
    digests = {role: one.sha256 for role, one in requests.uploaded_files(staged.manifest).items()}
    content = {"request": create_parameters(staged.job, digests)}
    return requests.request_token(staged, location_of(staged.job), content)


def api_calls(staged: StagedJob, token: str) -> list[ApiCall]:
    """Return every call that changes something, as `--dry-run` shows it."""
    name = job_id(staged.job.spec.name, token)
    files = requests.uploaded_files(staged.manifest)
    uploads = [
        ApiCall(
            service=SERVICE,
            operation="create_file",
            unless=UNLESS_THERE,
            file=role,
            parameters={
                "form": {
                    "purpose": PURPOSE,
                    "filename": file_name(name, role),
                    "file": f"<{file.name}, {file.bytes} bytes>",
                }
            },
        )
        for role, file in files.items()
    ]
    ids = {role: f"<id of {file_name(name, role)}>" for role in files}
    create = ApiCall(
        service=SERVICE,
        operation="create_fine_tuning_job",
        unless=UNLESS_CREATED,
        parameters=create_parameters(staged.job, ids),
    )
    return [*uploads, create]
