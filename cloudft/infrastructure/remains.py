"""What a stack holds that its end must not take along unasked: running jobs, models, objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.aws.client import Aws
from cloudft.aws.commands import command
from cloudft.aws.stack import Stack
from cloudft.errors import AwsNotFound, AwsRefused

RUNNING = ("InProgress", "Stopping")
BATCH = 1000
"""Versions that one call lists, or removes."""
KEPT = ("AWS::S3::Bucket", "AWS::KMS::Key")
"""The types of what outlives a stack of cloudft."""
LOGS = "LogBucket"
KEY_DAYS = 30
"""How long a key can still be saved after its end was ordered: the longest that KMS offers."""


@dataclass(frozen=True)
class Kept:
    """A resource that outlives its stack: `physical` is the bucket's name or the key's id."""

    logical: str
    type: str
    physical: str


@dataclass(frozen=True)
class Holdings:
    """What there is. `objects` counts versions by bucket, to BATCH at most; logs don't count."""

    jobs: Sequence[str]
    models: Sequence[str]
    objects: Mapping[str, int]


def kept(aws: Aws, stack_id: str) -> list[Kept]:
    """The buckets and keys of a stack, of one that is deleted those that it left behind."""
    what = "the stack's resources can't be listed"
    found = []
    for one in _pages(aws, what, "list_stack_resources", StackName=stack_id):
        physical, there = one.get("PhysicalResourceId"), one["ResourceStatus"] != "DELETE_COMPLETE"
        if one["ResourceType"] in KEPT and physical and there:
            found.append(Kept(one["LogicalResourceId"], one["ResourceType"], str(physical)))
    return [one for one in found if _is_there(aws, one)]


def _pages(aws: Aws, what: str, operation: str, **more: Any) -> Iterator[Mapping[str, Any]]:
    while True:
        answer = aws.call(what, "cloudformation", operation, **more)
        yield from answer["StackResourceSummaries"]
        if not answer.get("NextToken"):
            return
        more["NextToken"] = answer["NextToken"]


def _is_there(aws: Aws, one: Kept) -> bool:
    try:
        if one.type == "AWS::S3::Bucket":
            aws.call(f"{one.physical} can't be looked at", "s3", "head_bucket", Bucket=one.physical)
            return True
        answer = aws.call(
            f"the key {one.physical} can't be looked at", "kms", "describe_key", KeyId=one.physical
        )
        return str(answer["KeyMetadata"]["KeyState"]) != "PendingDeletion"
    except AwsNotFound:
        return False


def holdings(aws: Aws, stack: Stack | None, left: Sequence[Kept]) -> Holdings:
    """Everything that is in the stack's buckets, uses its roles or its key."""
    buckets = [o.physical for o in left if o.type == "AWS::S3::Bucket" and o.logical != LOGS]
    keys = {one.physical for one in left if one.type == "AWS::KMS::Key"}
    objects = {bucket: _count(aws, bucket) for bucket in buckets}
    roles = {v for v in stack.outputs.values() if ":role/" in v} if stack else set()
    jobs = list(_customizing(aws, roles)) if roles else []
    if stack and "SageMakerRoleArn" in stack.outputs:
        jobs += _training(aws, roles)
    return Holdings(jobs, list(_models(aws, keys)), {b: n for b, n in objects.items() if n})


def _count(aws: Aws, bucket: str) -> int:
    what = f"what is in {bucket} can't be listed"
    page = aws.call(what, "s3", "list_object_versions", Bucket=bucket, MaxKeys=BATCH)
    return len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))


def _customizing(aws: Aws, roles: set[str]) -> Iterator[str]:
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    for status in RUNNING:
        for summary in aws.pages(what, "bedrock", operation, key, statusEquals=status):
            arn = summary["jobArn"]
            get = "get_model_customization_job"
            job = aws.call("a job can't be read", "bedrock", get, jobIdentifier=arn)
            if job["roleArn"] in roles:
                yield str(job["jobName"])


def _training(aws: Aws, roles: set[str]) -> Iterator[str]:
    what = "the SageMaker jobs can't be listed"
    more: dict[str, str] = {}
    while True:
        page = aws.call(what, "sagemaker", "list_training_jobs", StatusEquals="InProgress", **more)
        for summary in page["TrainingJobSummaries"]:
            name = summary["TrainingJobName"]
            job = aws.call(what, "sagemaker", "describe_training_job", TrainingJobName=name)
            if job["RoleArn"] in roles:
                yield str(name)
        if not page.get("NextToken"):
            return
        more = {"NextToken": page["NextToken"]}


def _models(aws: Aws, keys: set[str]) -> Iterator[str]:
    """Custom and imported models that can't be used any more without one of the keys."""
    what, key = "the models can't be listed", "modelSummaries"
    looks: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("list_custom_models", {"isOwned": True}, "get_custom_model"),
        ("list_imported_models", {}, "get_imported_model"),
    )
    for listing, more, get in looks:
        for summary in aws.pages(what, "bedrock", listing, key, **more):
            arn = summary["modelArn"]
            model = aws.call("a model can't be read", "bedrock", get, modelIdentifier=arn)
            if str(model.get("modelKmsKeyArn") or "").rpartition("/")[2] in keys:
                yield str(summary["modelName"])


def remove(aws: Aws, one: Kept, owner: str, progress: Callable[[int], None]) -> str:
    """Remove a bucket with all versions of what is in it, or order the end of a key.

    Returns what became of it; `progress` is told how many versions are gone.
    """
    if one.type == "AWS::KMS::Key":
        what = f"the end of the key {one.physical} can't be ordered"
        told = aws.call(
            what, "kms", "schedule_key_deletion", KeyId=one.physical, PendingWindowInDays=KEY_DAYS
        )
        key = ("--key-id", one.physical)
        keep = command(aws, "kms", "cancel-key-deletion", *key)
        keep += f" && {command(aws, 'kms', 'enable-key', *key)}"  # it is disabled after the first
        return f"ends on {told['DeletionDate']:%Y-%m-%d}; until then `{keep}` saves it"
    where = {"Bucket": one.physical, "ExpectedBucketOwner": owner}
    _empty(aws, where, progress)
    what = f"the bucket {one.physical} can't be removed"
    with contextlib.suppress(AwsNotFound):
        aws.call(what, "s3", "delete_bucket", **where)
    return "removed"


def _empty(aws: Aws, where: Mapping[str, str], progress: Callable[[int], None]) -> None:
    what = f"{where['Bucket']} can't be emptied"
    while True:
        page = aws.call(what, "s3", "list_object_versions", MaxKeys=BATCH, **where)
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not found:
            break
        doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        delete = {"Objects": doomed, "Quiet": True}
        answer = aws.call(what, "s3", "delete_objects", Delete=delete, **where)
        if errors := answer.get("Errors"):
            first = errors[0]
            raise AwsRefused(
                f"{what}: {first.get('Key')}: {first.get('Code')}",
                fix="you need s3:DeleteObjectVersion; what is left stays as it is.",
            )
        progress(len(doomed))
    uploads = aws.call(what, "s3", "list_multipart_uploads", **where).get("Uploads", ())
    for one in uploads:
        upload = {"Key": one["Key"], "UploadId": one["UploadId"]}
        aws.call(what, "s3", "abort_multipart_upload", **upload, **where)
