"""Whether the role and the caller may do what a job needs, by IAM's policy simulator."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import MakeFinding, get_default_key, resolve_key_arn
from cloudft.backends.bedrock import request, required_permissions
from cloudft.backends.bedrock.account_helpers import BEDROCK, bucket_parameters
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def check_role_permissions(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    """Each permission that the role lacks, by name, with the statement that gives it."""
    wanted = required_permissions.role_permissions(job, _bucket_keys(job, aws))
    yield from account_checks.check_role_permissions(
        str(job.spec.bedrock.role_arn), wanted, aws, note, BEDROCK
    )


def _bucket_keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """The ARN of the key of each bucket that has one of the account's own."""
    found = {}
    for bucket in dict.fromkeys((request.s3_prefix(job)[0], request.output_s3_prefix(job)[0])):
        default = get_default_key(aws, bucket_parameters(job, bucket))
        key = job.spec.bedrock.s3_kms_key_id or default
        if key is not None:
            found[bucket] = resolve_key_arn(aws, key)
    return found


def check_caller_permissions(job: LoadedJob, aws: Aws, note: MakeFinding) -> Iterator[Finding]:
    """What you yourself may not do: create the job, tag it, hand the role to Bedrock."""
    yield from account_checks.check_caller_permissions(
        required_permissions.caller_permissions(job), aws, note, BEDROCK
    )
