"""What jobs of the OpenAI-compatible API leave in the account: uploaded files, tuned models.

They are looked for only from a home that has used the API in the Region: it is not in every Region,
and few callers may read it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from cloudft import catalogue
from cloudft.aws.client import Aws
from cloudft.backends.bedrock.openai_api.request import PURPOSE, SERVICE, job_of_file
from cloudft.backends.bedrock.openai_api.states import STATUSES
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import CloudResource
from cloudft.errors import ResourceNotFound
from cloudft.storage.atomic_files import as_store_error, make_private_folder
from cloudft.storage.home import Home
from cloudft.types import Listing

FILE_KIND, MODEL_KIND = "uploaded-file", "fine-tuned-model"
FOLDER = "openai"
FILE_LIFE = timedelta(hours=1)
"""How long a file without a job is kept: a submit may be about to create it."""


def record_use(home: Home, region: str) -> None:
    """Record, durably, that this home uses the API in a Region. Raise StoreError."""
    folder = _folder(home)
    with as_store_error("the use of the API can't be recorded", folder):
        make_private_folder(folder)
        (folder / region).touch()


def _folder(home: Home) -> Path:
    return home.path / FOLDER


def with_openai_resources(
    listing: Listing[CloudResource], home: Home, aws: Aws
) -> Listing[CloudResource]:
    """Return a listing of Bedrock with what the API's jobs have left."""
    if not _folder(home).is_dir() or not (_folder(home) / str(aws.region)).exists():
        return listing
    builder = ListingBuilder()
    items = builder.merge(listing)
    jobs: list[Any] = []

    def read_jobs() -> Iterable[CloudResource]:
        failure, operation = "the jobs can't be listed", "list_fine_tuning_jobs"
        jobs.extend(aws.paginate(failure, SERVICE, operation, "data", limit=100))
        return ()

    parts: dict[str, Callable[[], Iterable[CloudResource]]] = {
        "bedrock: fine-tuning jobs": read_jobs,
        "bedrock: uploaded files": lambda: _list_files(aws, jobs),
    }
    for what, part in parts.items():
        items += builder.collect(what, part)
        if builder.is_partial(what):  # without the jobs, no file is known to be unused
            break
    return builder.build(items)


def find_jobs_graded_by(aws: Aws, function: str) -> list[str]:
    """Return the ids of running jobs whose grader is a Lambda function, in any of its versions.

    A job whose grader the list does not have counts too: it may be this one. In Regions without
    the API there are none, and nothing is requested.
    """
    if aws.region not in api_regions():
        return []
    failure, operation = "the fine-tuning jobs can't be listed", "list_fine_tuning_jobs"
    jobs = aws.paginate(failure, SERVICE, operation, "data", limit=100)
    return [
        str(job["id"])
        for job in jobs
        if STATUSES[job["status"]][0] == "InProgress"
        and f"{_grader_of(job) or function}:".startswith(f"{function}:")
    ]


def api_regions() -> set[str]:
    """Return the Regions in which Bedrock tunes a model by this API."""
    models = catalogue.load_models()
    return {
        region
        for model in models
        if model.customization_api == "openai"
        for region in model.regions
    }


def _grader_of(job: Any) -> str:
    """Return the function that grades a job; empty where the list does not have it."""
    method = (job.get("method") or {}).get("reinforcement") or {}
    return str(((method.get("grader") or {}).get("lambda") or {}).get("function", ""))


def _list_files(aws: Aws, jobs: list[Any]) -> Iterator[CloudResource]:
    """Yield the tuned models, and the files of cloudft that no job was created from."""
    listed = aws.paginate(
        "the files can't be listed", SERVICE, "list_files", "data", purpose=PURPOSE
    )
    names = {file["id"]: file for file in listed}
    for job in jobs:
        file = names.get(job["training_file"])
        if job.get("fine_tuned_model"):
            yield _model(job, None if file is None else job_of_file(file["filename"]))
    used = {job.get(role) for job in jobs for role in ("training_file", "validation_file")}
    for identifier, file in names.items():
        owner = job_of_file(file["filename"])
        if owner is not None and identifier not in used:
            yield _file(file, owner)


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, timezone.utc)


def _file(file: Any, owner: str) -> CloudResource:
    created = _time(file.get("created_at", 0))
    return CloudResource(
        kind=FILE_KIND,
        id=file["id"],
        name=file["filename"],
        status="unused",
        created_at=created.isoformat(),
        usd={"perHour": None, "perMonth": None},
        job=owner,
        expires_at=(created + FILE_LIFE).isoformat(),
        basis="no price of uploaded files is published (Bedrock pricing page, 2026-07-24)",
    )


def _model(job: Any, owner: str | None) -> CloudResource:
    model = catalogue.find_catalogue_model(job["model"])
    prices = None if model is None else model.prices_in(None)
    price = prices.usd("storage_per_month") if prices else None
    source = prices.source_of("storage_per_month") if prices else None
    return CloudResource(
        kind=MODEL_KIND,
        id=job["fine_tuned_model"],
        name=job["fine_tuned_model"],
        status="ready",
        created_at=_time(job.get("finished_at") or job.get("created_at", 0)).isoformat(),
        usd={"perHour": 0.0, "perMonth": price},
        job=owner,
        basis=f"storage by the month, answers by the token ({source})" if source else "",
    )


def delete_file(aws: Aws, resource: CloudResource) -> None:
    """Delete an uploaded file; one that is gone is no error."""
    failure = f"{resource.name} can't be deleted"
    try:
        aws.call(failure, SERVICE, "delete_file", file_id=resource.id)
    except ResourceNotFound:
        return
