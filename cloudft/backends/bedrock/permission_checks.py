"""Check the role's and the caller's permissions with IAM's policy simulator."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding, get_default_key, resolve_key_arn
from cloudft.backends.bedrock import request, required_permissions
from cloudft.backends.bedrock.account_helpers import BEDROCK, bucket_parameters
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def check_role_permissions(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for each permission that the role lacks, with the statement to add."""
    permissions = required_permissions.role_permissions(job, _bucket_keys(job, aws))
    yield from account_checks.check_role_permissions(
        str(job.spec.bedrock.role_arn), permissions, aws, finding, BEDROCK
    )


def _bucket_keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """Return the ARN of the KMS key of each bucket that is encrypted with one of the account's."""
    arns = {}
    for bucket in dict.fromkeys((request.s3_prefix(job)[0], request.output_s3_prefix(job)[0])):
        default = get_default_key(aws, bucket_parameters(job, bucket))
        key = job.spec.bedrock.s3_kms_key_id or default
        if key is not None:
            arns[bucket] = resolve_key_arn(aws, key)
    return arns


def check_caller_permissions(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Yield a finding for each permission that the caller lacks to create, tag and pass."""
    permissions = required_permissions.caller_permissions(job)
    yield from account_checks.check_caller_permissions(permissions, aws, finding, BEDROCK)
