"""Find and remove what deleting a stack must not remove unasked: running jobs, models, objects."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws, Response
from cloudft.aws.stack import Stack
from cloudft.errors import CloudRefused, ResourceNotFound
from cloudft.infra.ownership import SERVICE

RUNNING_STATUSES = ("InProgress", "Stopping")
VERSIONS_PER_CALL = 1000
"""Object versions that one call lists, or deletes."""
BUCKET, KEY = "AWS::S3::Bucket", "AWS::KMS::Key"
RETAINED_TYPES = (BUCKET, KEY)
"""The resource types that stay when a stack of cloudft is deleted."""
LOG_BUCKET = "LogBucket"
KEY_DELETION_DAYS = 30
"""Waiting period in which the deletion of a key can be canceled: the longest that KMS offers."""


@dataclass(frozen=True)
class RetainedResource:
    """A resource that outlives its stack. `physical_id` is the bucket's name or the key's id."""

    logical_id: str
    type: str
    physical_id: str


@dataclass(frozen=True)
class StackContents:
    """What uses a stack: names of running jobs and of models, and object versions by bucket.

    Versions are counted up to `VERSIONS_PER_CALL`; access logs do not count.
    """

    jobs: Sequence[str]
    models: Sequence[str]
    objects: Mapping[str, int]


def list_retained_resources(aws: Aws, stack_id: str) -> list[RetainedResource]:
    """Return the stack's buckets and keys that still exist; the stack may be deleted."""
    failure = "can't list the stack's resources"
    key = "StackResourceSummaries"
    resources = []
    for summary in aws.paginate(failure, SERVICE, "list_stack_resources", key, StackName=stack_id):
        physical_id = summary.get("PhysicalResourceId")
        is_retained = summary["ResourceType"] in RETAINED_TYPES
        if is_retained and physical_id and summary["ResourceStatus"] != "DELETE_COMPLETE":
            resources.append(
                RetainedResource(
                    summary["LogicalResourceId"], summary["ResourceType"], str(physical_id)
                )
            )
    return [resource for resource in resources if _exists(aws, resource)]


def _exists(aws: Aws, resource: RetainedResource) -> bool:
    name = resource.physical_id
    try:
        if resource.type == BUCKET:
            aws.call(f"can't read the bucket {name}", "s3", "head_bucket", Bucket=name)
            return True
        key = aws.call(f"can't read the key {name}", "kms", "describe_key", KeyId=name)
        return str(key["KeyMetadata"]["KeyState"]) != "PendingDeletion"
    except ResourceNotFound:
        return False


def find_stack_contents(
    aws: Aws, stack: Stack | None, retained: Sequence[RetainedResource]
) -> StackContents:
    """Return everything that is in the stack's buckets, or uses its roles or its key."""
    buckets = [r.physical_id for r in retained if r.type == BUCKET and r.logical_id != LOG_BUCKET]
    keys = {r.physical_id for r in retained if r.type == KEY}
    objects = {bucket: _count_versions(aws, bucket) for bucket in buckets}
    roles = {v for v in stack.outputs.values() if ":role/" in v} if stack else set()
    running = list_running_jobs(aws) if roles else iter(())
    jobs = [str(job["jobName"]) for job in running if job["roleArn"] in roles]
    if stack and "SageMakerRoleArn" in stack.outputs:
        jobs += _list_training_jobs(aws, roles)
    return StackContents(
        jobs, list(_list_models_using(aws, keys)), {b: n for b, n in objects.items() if n}
    )


def _count_versions(aws: Aws, bucket: str) -> int:
    failure = f"can't list the objects of {bucket}"
    page = aws.call(failure, "s3", "list_object_versions", Bucket=bucket, MaxKeys=VERSIONS_PER_CALL)
    return len(page.get("Versions", ())) + len(page.get("DeleteMarkers", ()))


def list_running_jobs(aws: Aws) -> Iterator[Response]:
    """Yield the descriptions of the running customization jobs."""
    failure, key = "can't list the customization jobs", "modelCustomizationJobSummaries"
    operation = "list_model_customization_jobs"
    for status in RUNNING_STATUSES:
        for summary in aws.paginate(failure, "bedrock", operation, key, statusEquals=status):
            # The list contains neither role nor grader: each job has to be read.
            yield aws.call(
                "can't read a customization job",
                "bedrock",
                "get_model_customization_job",
                jobIdentifier=summary["jobArn"],
            )


def _list_training_jobs(aws: Aws, roles: set[str]) -> Iterator[str]:
    """Yield the names of running SageMaker training jobs with one of the roles."""
    failure, key = "can't list the SageMaker training jobs", "TrainingJobSummaries"
    for summary in aws.paginate(
        failure, "sagemaker", "list_training_jobs", key, StatusEquals="InProgress"
    ):
        name = summary["TrainingJobName"]
        job = aws.call(failure, "sagemaker", "describe_training_job", TrainingJobName=name)
        if job["RoleArn"] in roles:
            yield str(name)


class _ModelOperations(NamedTuple):
    """The operations of one kind of model. `is_owned` is a filter that only custom models have."""

    list_operation: str
    get_operation: str
    filters: Mapping[str, bool]


MODEL_OPERATIONS = (
    _ModelOperations("list_custom_models", "get_custom_model", {"isOwned": True}),
    _ModelOperations("list_imported_models", "get_imported_model", {}),
)


def _list_models_using(aws: Aws, keys: set[str]) -> Iterator[str]:
    """Yield the names of custom and imported models that are unusable without one of the keys."""
    failure, key = "can't list the models", "modelSummaries"
    for operations in MODEL_OPERATIONS:
        for summary in aws.paginate(
            failure, "bedrock", operations.list_operation, key, **operations.filters
        ):
            model = aws.call(
                "can't read a model",
                "bedrock",
                operations.get_operation,
                modelIdentifier=summary["modelArn"],
            )
            if str(model.get("modelKmsKeyArn") or "").rpartition("/")[2] in keys:
                yield str(summary["modelName"])


def remove_resource(
    aws: Aws, resource: RetainedResource, owner: str, progress: Callable[[int], None]
) -> str:
    """Delete a bucket with all object versions, or schedule the deletion of a key.

    `owner` is the account that must own the bucket. `progress` receives the number of versions of
    each call. Returns what happened, as a sentence part.
    """
    if resource.type == KEY:
        return _schedule_key_deletion(aws, resource.physical_id)
    bucket = {"Bucket": resource.physical_id, "ExpectedBucketOwner": owner}
    _empty_bucket(aws, bucket, progress)
    with contextlib.suppress(ResourceNotFound):
        failure = f"can't delete the bucket {resource.physical_id}"
        aws.call(failure, "s3", "delete_bucket", **bucket)
    return "removed"


def _schedule_key_deletion(aws: Aws, key_id: str) -> str:
    answer = aws.call(
        f"can't schedule the deletion of the key {key_id}",
        "kms",
        "schedule_key_deletion",
        KeyId=key_id,
        PendingWindowInDays=KEY_DELETION_DAYS,
    )
    key = ("--key-id", key_id)
    # A key whose deletion was canceled is disabled.
    undo = aws_cli_command(aws, "kms", "cancel-key-deletion", *key)
    undo += f" && {aws_cli_command(aws, 'kms', 'enable-key', *key)}"
    return f"will be deleted on {answer['DeletionDate']:%Y-%m-%d}; `{undo}` cancels that"


def _empty_bucket(aws: Aws, bucket: Mapping[str, str], progress: Callable[[int], None]) -> None:
    failure = f"can't empty the bucket {bucket['Bucket']}"
    # Always the first page: what is listed is deleted before the next call.
    while True:
        page = aws.call(failure, "s3", "list_object_versions", MaxKeys=VERSIONS_PER_CALL, **bucket)
        versions = [*page.get("Versions", ()), *page.get("DeleteMarkers", ())]
        if not versions:
            break
        objects = [{"Key": v["Key"], "VersionId": v["VersionId"]} for v in versions]
        delete = {"Objects": objects, "Quiet": True}
        answer = aws.call(failure, "s3", "delete_objects", Delete=delete, **bucket)
        if errors := answer.get("Errors"):
            first = errors[0]
            raise CloudRefused(
                f"{failure}: {first.get('Key')}: {first.get('Code')}",
                fix="grant s3:DeleteObjectVersion on the bucket; what is left is unchanged.",
            )
        progress(len(objects))
    for upload in aws.paginate(failure, "s3", "list_multipart_uploads", "Uploads", **bucket):
        part = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
        aws.call(failure, "s3", "abort_multipart_upload", **part, **bucket)
