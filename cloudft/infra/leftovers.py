"""What a stack holds that its end must not take along unasked: running jobs, models, objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.stack import Stack
from cloudft.errors import CloudRefused, ResourceNotFound

RUNNING_STATUSES = ("InProgress", "Stopping")
VERSIONS_PER_CALL = 1000
"""Versions that one call lists, or removes."""
RETAINED_TYPES = ("AWS::S3::Bucket", "AWS::KMS::Key")
"""The types of what outlives a stack of cloudft."""
LOG_BUCKET = "LogBucket"
KEY_DELETION_DAYS = 30
"""How long a key can still be saved after its end was ordered: the longest that KMS offers."""


@dataclass(frozen=True)
class RetainedResource:
    """A resource that outlives its stack: `physical` is the bucket's name or the key's id."""

    logical_id: str
    type: str
    physical_id: str


@dataclass(frozen=True)
class StackContents:
    """What there is. `objects` counts versions by bucket, to BATCH at most; logs don't count."""

    jobs: Sequence[str]
    models: Sequence[str]
    objects: Mapping[str, int]


def list_retained_resources(aws: Aws, stack_id: str) -> list[RetainedResource]:
    """The buckets and keys of a stack, of one that is deleted those that it left behind."""
    what = "the stack's resources can't be listed"
    found = []
    for one in _list_pages(aws, what, "list_stack_resources", StackName=stack_id):
        physical, there = one.get("PhysicalResourceId"), one["ResourceStatus"] != "DELETE_COMPLETE"
        if one["ResourceType"] in RETAINED_TYPES and physical and there:
            found.append(
                RetainedResource(one["LogicalResourceId"], one["ResourceType"], str(physical))
            )
    return [one for one in found if _exists(aws, one)]


def _list_pages(aws: Aws, what: str, operation: str, **more: Any) -> Iterator[Mapping[str, Any]]:
    while True:
        answer = aws.call(what, "cloudformation", operation, **more)
        yield from answer["StackResourceSummaries"]
        if not answer.get("NextToken"):
            return
        more["NextToken"] = answer["NextToken"]


def _exists(aws: Aws, one: RetainedResource) -> bool:
    try:
        if one.type == "AWS::S3::Bucket":
            aws.call(
                f"{one.physical_id} can't be looked at", "s3", "head_bucket", Bucket=one.physical_id
            )
            return True
        answer = aws.call(
            f"the key {one.physical_id} can't be looked at",
            "kms",
            "describe_key",
            KeyId=one.physical_id,
        )
        return str(answer["KeyMetadata"]["KeyState"]) != "PendingDeletion"
    except ResourceNotFound:
        return False


def find_stack_contents(
    aws: Aws, stack: Stack | None, left: Sequence[RetainedResource]
) -> StackContents:
    """Everything that is in the stack's buckets, uses its roles or its key."""
    buckets = [
        o.physical_id for o in left if o.type == "AWS::S3::Bucket" and o.logical_id != LOG_BUCKET
    ]
    keys = {one.physical_id for one in left if one.type == "AWS::KMS::Key"}
    objects = {bucket: _count_versions(aws, bucket) for bucket in buckets}
    roles = {v for v in stack.outputs.values() if ":role/" in v} if stack else set()
    jobs = list(_list_customization_jobs(aws, roles)) if roles else []
    if stack and "SageMakerRoleArn" in stack.outputs:
        jobs += _list_training_jobs(aws, roles)
    return StackContents(
        jobs, list(_list_models_using(aws, keys)), {b: n for b, n in objects.items() if n}
    )


def _count_versions(aws: Aws, bucket: str) -> int:
    what = f"what is in {bucket} can't be listed"
    page = aws.call(what, "s3", "list_object_versions", Bucket=bucket, MaxKeys=VERSIONS_PER_CALL)
    return len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))


def _list_customization_jobs(aws: Aws, roles: set[str]) -> Iterator[str]:
    what, key = "the jobs can't be listed", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    for status in RUNNING_STATUSES:
        for summary in aws.paginate(what, "bedrock", operation, key, statusEquals=status):
            arn = summary["jobArn"]
            get = "get_model_customization_job"
            job = aws.call("a job can't be read", "bedrock", get, jobIdentifier=arn)
            if job["roleArn"] in roles:
                yield str(job["jobName"])


def _list_training_jobs(aws: Aws, roles: set[str]) -> Iterator[str]:
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


def _list_models_using(aws: Aws, keys: set[str]) -> Iterator[str]:
    """Custom and imported models that can't be used any more without one of the keys."""
    what, key = "the models can't be listed", "modelSummaries"
    looks: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("list_custom_models", {"isOwned": True}, "get_custom_model"),
        ("list_imported_models", {}, "get_imported_model"),
    )
    for listing, more, get in looks:
        for summary in aws.paginate(what, "bedrock", listing, key, **more):
            arn = summary["modelArn"]
            model = aws.call("a model can't be read", "bedrock", get, modelIdentifier=arn)
            if str(model.get("modelKmsKeyArn") or "").rpartition("/")[2] in keys:
                yield str(summary["modelName"])


def remove_resource(
    aws: Aws, one: RetainedResource, owner: str, progress: Callable[[int], None]
) -> str:
    """Remove a bucket with all versions of what is in it, or order the end of a key.

    Returns what became of it; `progress` is told how many versions are gone.
    """
    if one.type == "AWS::KMS::Key":
        what = f"the end of the key {one.physical_id} can't be ordered"
        told = aws.call(
            what,
            "kms",
            "schedule_key_deletion",
            KeyId=one.physical_id,
            PendingWindowInDays=KEY_DELETION_DAYS,
        )
        key = ("--key-id", one.physical_id)
        keep = aws_cli_command(aws, "kms", "cancel-key-deletion", *key)
        # A key whose deletion was canceled is disabled.
        keep += f" && {aws_cli_command(aws, 'kms', 'enable-key', *key)}"
        return f"ends on {told['DeletionDate']:%Y-%m-%d}; until then `{keep}` saves it"
    where = {"Bucket": one.physical_id, "ExpectedBucketOwner": owner}
    _empty_bucket(aws, where, progress)
    what = f"the bucket {one.physical_id} can't be removed"
    with contextlib.suppress(ResourceNotFound):
        aws.call(what, "s3", "delete_bucket", **where)
    return "removed"


def _empty_bucket(aws: Aws, where: Mapping[str, str], progress: Callable[[int], None]) -> None:
    what = f"{where['Bucket']} can't be emptied"
    while True:
        page = aws.call(what, "s3", "list_object_versions", MaxKeys=VERSIONS_PER_CALL, **where)
        found = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not found:
            break
        doomed = [{"Key": one["Key"], "VersionId": one["VersionId"]} for one in found]
        delete = {"Objects": doomed, "Quiet": True}
        answer = aws.call(what, "s3", "delete_objects", Delete=delete, **where)
        if errors := answer.get("Errors"):
            first = errors[0]
            raise CloudRefused(
                f"{what}: {first.get('Key')}: {first.get('Code')}",
                fix="you need s3:DeleteObjectVersion; what is left stays as it is.",
            )
        progress(len(doomed))
    uploads = aws.call(what, "s3", "list_multipart_uploads", **where).get("Uploads", ())
    for one in uploads:
        upload = {"Key": one["Key"], "UploadId": one["UploadId"]}
        aws.call(what, "s3", "abort_multipart_upload", **upload, **where)
