"""Check what every job on SageMaker must name, with machines or without."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.backends.findings import FindingFactory
from cloudft.backends.sagemaker import request
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def check_required_values(job: LoadedJob, finding: FindingFactory) -> Iterator[Finding]:
    """Yield a finding for a missing Region, role or S3 location."""
    spec = job.spec.sagemaker
    if request.location_of(job)["region"] is None:
        fix = "set sagemaker.region, --region or AWS_REGION."
        yield finding("MissingValue", "sagemaker.region", "no AWS Region is set", fix)
    if spec.role_arn is None:
        fix = "set sagemaker.role_arn (sagemaker.amazonaws.com may assume it), or sagemaker.stack."
        yield finding("MissingValue", "sagemaker.role_arn", "no execution role is set", fix)
    if spec.s3_uri is None:
        fix = "set sagemaker.s3_uri: s3://BUCKET/PREFIX, in the job's Region; or sagemaker.stack."
        yield finding("MissingValue", "sagemaker.s3_uri", "no S3 location is set", fix)
