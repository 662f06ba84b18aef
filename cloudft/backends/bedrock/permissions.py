"""Whether the role and the caller may do what a job needs, by IAM's policy simulator."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends.account_checks import Note, caller_may, default_key, key_arn, role_may
from cloudft.backends.bedrock import needs, request
from cloudft.backends.bedrock.notes import BEDROCK, where_of
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def of_role(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """Each permission that the role lacks, by name, with the statement that gives it."""
    wanted = needs.of_role(job, _keys(job, aws))
    yield from role_may(str(job.spec.bedrock.role_arn), wanted, aws, note, BEDROCK)


def _keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """The ARN of the key of each bucket that has one of the account's own."""
    found = {}
    for bucket in dict.fromkeys((request.prefix_of(job)[0], request.output_prefix_of(job)[0])):
        default = default_key(aws, where_of(job, bucket))
        key = job.spec.bedrock.s3_kms_key_id or default
        if key is not None:
            found[bucket] = key_arn(aws, key)
    return found


def of_caller(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """What you yourself may not do: create the job, tag it, hand the role to Bedrock."""
    yield from caller_may(needs.of_caller(job), aws, note, BEDROCK)
