"""Values that Bedrock's account checks share: the service, and parameters of a bucket."""

from __future__ import annotations

from cloudft.aws import s3
from cloudft.backends.aws_base.account_checks import TrainingService
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.required_permissions import SERVICE_PRINCIPAL
from cloudft.spec.load import LoadedJob

JOB_TYPES = ("model-customization-job", "model-invocation-job")
"""Jobs that assume the role: the customization job, and batches that evaluate its model."""
BEDROCK = TrainingService("bedrock", "Bedrock", SERVICE_PRINCIPAL, JOB_TYPES)
"""Source of its trust policy: Bedrock user guide, "Service role"."""


def bucket_parameters(job: LoadedJob, bucket: str) -> dict[str, str]:
    """Return a bucket as S3's operations take it, with the account that must own it, if known."""
    return s3.bucket_parameters(bucket, request.expected_bucket_owner(job))
