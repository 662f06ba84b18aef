"""Merged models that were sent to S3 for imports: those of imports that have ended may go."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.aws.client import Aws
from cloudft.aws.tags import JOB_TAG
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.bedrock import request, states
from cloudft.backends.bedrock.model_import.request import MODELS_PREFIX
from cloudft.backends.bedrock.output import list_objects
from cloudft.backends.resources import IN_USE, CloudResource
from cloudft.errors import PermissionDenied, ResourceNotFound

MODEL_FOLDER = re.compile(rf"s3://[^/]+/(.+/)?{MODELS_PREFIX}[0-9a-f]{{64}}/")
"""Where cloudft puts models. Others may have such a place too: the tag is the proof."""


def list_staged_models(aws: Aws, owner_parameters: Mapping[str, str]) -> Iterator[CloudResource]:
    """The files of each; what a running import reads comes as IN_USE."""
    running: dict[str, Mapping[str, Any]] = {}
    ended: dict[str, list[Mapping[str, Any]]] = {}
    what, key = "the imports can't be listed", "modelImportJobSummaries"
    for summary in aws.paginate(what, "bedrock", "list_model_import_jobs", key):
        arn, name = summary["jobArn"], summary["jobName"]
        works = summary["status"] == "InProgress"  # whoever made it
        if not works and not request.JOB_NAME.fullmatch(name):
            continue
        job = aws.call(what, "bedrock", "get_model_import_job", jobIdentifier=arn)
        uri = job["modelDataSource"].get("s3DataSource", {}).get("s3Uri", "")
        if works:
            running[uri] = job
        elif MODEL_FOLDER.fullmatch(uri) and _get_job_tag(aws, arn) == name:
            ended.setdefault(uri, []).append(job)
    for uri, job in running.items():
        made, usd = str(states.iso_format(job["creationTime"])), {"perHour": 0.0, "perMonth": None}
        yield CloudResource("data", uri, uri, IN_USE, made, usd, job["jobName"])
    for uri, jobs in ended.items():
        if uri not in running:
            yield from _list_files(aws, uri, owner_parameters, jobs)


def _get_job_tag(aws: Aws, arn: str) -> str | None:
    what = f"the tags of {arn} can't be read"
    answer = aws.call(what, "bedrock", "list_tags_for_resource", resourceARN=arn)
    return next((tag["value"] for tag in answer["tags"] if tag["key"] == JOB_TAG), None)


def _list_files(
    aws: Aws, uri: str, owner: Mapping[str, str], jobs: Sequence[Mapping[str, Any]]
) -> Iterator[CloudResource]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        keys = [key for key, _ in list_objects(aws, {"Bucket": bucket, **owner}, prefix)]
    except ResourceNotFound:
        return
    except PermissionDenied:
        if is_owned_by_other_account(aws, bucket):
            return
        raise
    job, *others = jobs
    made, usd = str(states.iso_format(job["creationTime"])), {"perHour": 0.0, "perMonth": None}
    also = tuple(str(other["jobName"]) for other in others)
    for key in keys:
        name, place = key.rpartition("/")[2], f"s3://{bucket}/{key}"
        yield CloudResource("data", place, name, "staged", made, usd, job["jobName"], also=also)
