"""What the checks of an account share on Bedrock: the service, and how a bucket is named."""

from __future__ import annotations

from cloudft.backends.aws_base.account_checks import TrainingService
from cloudft.backends.bedrock import request
from cloudft.backends.bedrock.required_permissions import SERVICE_PRINCIPAL
from cloudft.spec.load import LoadedJob

JOB_TYPES = ("model-customization-job", "model-invocation-job")
"""What takes the role on: the job, and the batches of an evaluation of its model."""
BEDROCK = TrainingService("bedrock", "Bedrock", SERVICE_PRINCIPAL, JOB_TYPES)
"""Its trust: Bedrock user guide, "Service role"."""


def bucket_parameters(job: LoadedJob, bucket: str) -> dict[str, str]:
    """A bucket, and the account that it must belong to where that is known."""
    owner = request.expected_bucket_owner(job)
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
