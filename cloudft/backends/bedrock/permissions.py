"""Whether the role and the caller may do what a job needs, by IAM's policy simulator."""

from __future__ import annotations

import json
from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.aws.permissions import principal_of, refused, statement
from cloudft.backends.bedrock import needs, request
from cloudft.backends.bedrock.notes import Note, encryption, where_of
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding


def of_role(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """Each permission that the role lacks, by name, with the statement that gives it."""
    role = str(job.spec.bedrock.role_arn)
    for need, decision in refused(aws, role, needs.of_role(job, _keys(job, aws))):
        message = f"the role may not {need.action} on {need.resource} ({decision})"
        if need.severity == "warning":
            message += "; what it acts on may allow it by a policy of its own"
        fix = "add to the role's policy: " + json.dumps(statement(need))
        yield note("RoleDenied", "bedrock.role_arn", message, fix, need.severity)


def _keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """The ARN of the key of each bucket that has one of the account's own."""
    found = {}
    for bucket in dict.fromkeys((request.prefix_of(job)[0], request.output_prefix_of(job)[0])):
        key = job.spec.bedrock.s3_kms_key_id
        for rule in encryption(aws, where_of(job, bucket)):
            key = key or rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")
        if key is not None:
            found[bucket] = _key_arn(aws, key)
    return found


def _key_arn(aws: Aws, key: str) -> str:
    if key.startswith("arn:") and ":key/" in key:
        return key
    answer = aws.call(f"{key} can't be looked at", "kms", "describe_key", KeyId=key)
    return str(answer["KeyMetadata"]["Arn"])


def of_caller(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """What you yourself may not do: create the job, tag it, hand the role to Bedrock."""
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    principal = principal_of(str(identity["Arn"]))
    if principal.endswith(":root"):  # the simulator takes no root user, and denies it nothing
        return
    for need, decision in refused(aws, principal, needs.of_caller(job)):
        message = f"{principal} may not {need.action} on {need.resource} ({decision})"
        fix = "ask for: " + json.dumps(statement(need))
        yield note("CallerDenied", "bedrock", message, fix, need.severity)
