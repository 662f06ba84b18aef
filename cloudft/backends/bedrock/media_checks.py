"""Check the images, videos and documents that a job's records name: objects in S3. Reads only.

The first ones are read, not all: a dataset may name 200,000. What can't be read is reported as
unchecked, never as missing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

from cloudft.aws.client import Aws
from cloudft.aws.permissions import RequiredPermission
from cloudft.aws.s3 import split_s3_uri
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.account_helpers import BEDROCK
from cloudft.backends.bedrock.required_permissions import arn_context
from cloudft.data.checks.content_limits import MediaObject, MediaUse
from cloudft.errors import CloudRefused, CloudUnreachable, ResourceNotFound
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

MAX_OBJECTS = 20
"""Objects that are read, the first that the records name."""
FIELD = "data.train"


def check_media(
    job: LoadedJob, media: MediaUse, aws: Aws, finding: MakeFinding
) -> Iterator[Finding]:
    """Yield what is wrong with the objects that records name."""
    if not media.objects or job.spec.bedrock.s3_uri is None:
        return
    yield from _check_buckets(job, media, finding)
    checked = list(islice(media.objects.values(), MAX_OBJECTS))
    for item in checked:
        try:
            yield from _check_object(job, item, aws, finding)
        except (CloudRefused, CloudUnreachable) as error:
            # Without the permission none of them can be read: one warning is enough.
            what = f"whether the media of the records are there ({item.uri})"
            yield account_checks.unchecked_finding(what, FIELD, error, finding)
            break
    try:
        yield from _check_role(job, checked, aws, finding)
    except (CloudRefused, CloudUnreachable) as error:
        what = "whether the role may read the media of the records"
        yield account_checks.unchecked_finding(what, FIELD, error, finding)


def _check_buckets(job: LoadedJob, media: MediaUse, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for media in other buckets than the dataset's, where the model needs that."""
    limits = job.model.limits.get(job.spec.customization_type)
    bucket = request.s3_prefix(job)[0]
    others = sorted(set(media.buckets) - {bucket})
    if limits is None or not limits.media_in_dataset_bucket or not others:
        return
    source = limits.source_of("media")
    message = f"records name media in the bucket {others[0]}, the dataset goes to {bucket}"
    message += f": {job.model.alias} needs both in one ({source})"
    fix = f"set bedrock.s3_uri to a prefix in {others[0]}, or copy the media to {bucket}."
    yield finding("MediaInOtherBucket", FIELD, message, fix)


def _check_object(
    job: LoadedJob, item: MediaObject, aws: Aws, finding: MakeFinding
) -> Iterator[Finding]:
    """Yield a finding for an object that is missing or too large. Raise CloudRefused."""
    bucket, key = split_s3_uri(item.uri)
    try:
        answer = aws.call(f"can't read {item.uri}", "s3", "head_object", Bucket=bucket, Key=key)
    except ResourceNotFound:
        message = f"a record names {item.uri}, which is not there"
        yield finding("NoMedia", FIELD, message, "upload it, or take the record out.")
        return
    limits = job.model.limits[job.spec.customization_type].media.get(item.kind)
    size = int(answer["ContentLength"])
    if limits is not None and limits.bytes_max is not None and size > limits.bytes_max:
        message = f"{item.uri} has {size} bytes; {limits.bytes_max} at most"
        yield finding("MediaTooLarge", FIELD, message, "make it smaller, or take the record out.")


def _check_role(
    job: LoadedJob, checked: Sequence[MediaObject], aws: Aws, finding: MakeFinding
) -> Iterator[Finding]:
    """Yield a finding for each folder of media that the role may not read."""
    arns = arn_context(job)
    folders = {
        (bucket, key.rpartition("/")[0])
        for bucket, key in (split_s3_uri(item.uri) for item in checked)
    }
    permissions = [
        RequiredPermission("s3:GetObject", arns.bucket_arn(bucket, f"{folder}/*".lstrip("/")))
        for bucket, folder in sorted(folders)
    ]
    role = str(job.spec.bedrock.role_arn)
    yield from account_checks.check_role_permissions(role, permissions, aws, finding, BEDROCK)
