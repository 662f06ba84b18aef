"""List merged models that were staged in S3 for imports; those of ended imports may be removed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import cast

from cloudft.aws.client import Aws
from cloudft.aws.s3 import bucket_parameters, list_objects, s3_uri, split_s3_uri
from cloudft.aws.tags import JOB_TAG
from cloudft.backends.aws_base.backend import is_owned_by_other_account
from cloudft.backends.bedrock import request, states
from cloudft.backends.bedrock.account_helpers import get_tags
from cloudft.backends.bedrock.api_shapes import ImportJob
from cloudft.backends.bedrock.model_import.request import MODELS_PREFIX
from cloudft.backends.resources import IN_USE, CloudResource
from cloudft.errors import PermissionDenied, ResourceNotFound

MODEL_FOLDER = re.compile(rf"s3://[^/]+/(.+/)?{MODELS_PREFIX}[0-9a-f]{{64}}/")
"""Form of the folders in which cloudft stages models. Others may use it too: the tag is proof."""


def list_staged_models(aws: Aws, account: str) -> Iterator[CloudResource]:
    """Yield the files of each model, and what a running import reads as IN_USE.

    Only buckets of `account` are listed.
    """
    running: dict[str, ImportJob] = {}
    ended: dict[str, list[ImportJob]] = {}
    failure, key = "the imports can't be listed", "modelImportJobSummaries"
    for summary in aws.paginate(failure, "bedrock", "list_model_import_jobs", key):
        arn, name = summary["jobArn"], summary["jobName"]
        is_running = summary["status"] == "InProgress"  # whoever created it
        if not is_running and not request.JOB_NAME.fullmatch(name):
            continue
        response = aws.call(failure, "bedrock", "get_model_import_job", jobIdentifier=arn)
        job = cast("ImportJob", response)
        uri = job["modelDataSource"].get("s3DataSource", {}).get("s3Uri", "")
        if is_running:
            running[uri] = job
        elif MODEL_FOLDER.fullmatch(uri) and get_tags(aws, arn).get(JOB_TAG) == name:
            ended.setdefault(uri, []).append(job)
    for uri, job in running.items():
        yield _data_resource(uri, uri, IN_USE, [job])
    for uri, jobs in ended.items():
        if uri not in running:
            yield from _list_files(aws, uri, account, jobs)


def _list_files(
    aws: Aws, uri: str, account: str, jobs: Sequence[ImportJob]
) -> Iterator[CloudResource]:
    bucket, prefix = split_s3_uri(uri)
    try:
        objects = list(list_objects(aws, bucket_parameters(bucket, account), prefix))
    except ResourceNotFound:
        return
    except PermissionDenied:
        if is_owned_by_other_account(aws, bucket):
            return
        raise
    for key, _ in objects:
        yield _data_resource(s3_uri(bucket, key), key.rpartition("/")[2], "staged", jobs)


def _data_resource(uri: str, name: str, status: str, jobs: Sequence[ImportJob]) -> CloudResource:
    job, *others = jobs
    return CloudResource(
        kind="data",
        id=uri,
        name=name,
        status=status,
        created_at=str(states.iso_format(job["creationTime"])),
        usd={"perHour": 0.0, "perMonth": None},
        job=job["jobName"],
        also=tuple(other["jobName"] for other in others),
    )
