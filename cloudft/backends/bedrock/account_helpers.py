"""Helpers for calls about a job's account: the service, buckets, tags."""

from __future__ import annotations

from cloudft.aws import s3
from cloudft.aws.client import Aws
from cloudft.aws.tags import from_tag_list
from cloudft.backends.aws_base.account_checks import TrainingService
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.required_permissions import SERVICE_PRINCIPAL
from cloudft.spec.load import LoadedJob

JOB_TYPES = ("model-customization-job", "model-invocation-job", "evaluation-job")
"""Jobs that assume the role: the customization job, and what evaluates its model."""
BEDROCK = TrainingService("bedrock", "Bedrock", SERVICE_PRINCIPAL, JOB_TYPES)
"""Source of its trust policy: Bedrock user guide, "Service role"."""


def bucket_parameters(job: LoadedJob, bucket: str) -> dict[str, str]:
    """Return a bucket as S3's operations take it, with the account that must own it, if known."""
    return s3.bucket_parameters(bucket, request.expected_bucket_owner(job))


def get_tags(aws: Aws, arn: str, name: str | None = None) -> dict[str, str]:
    """Return the tags of a Bedrock resource, called `name` in errors.

    Raise CloudRefused and CloudUnreachable.
    """
    failure = f"the tags of {name or arn} can't be read"
    response = aws.call(failure, "bedrock", "list_tags_for_resource", resourceARN=arn)
    return from_tag_list(response["tags"])
