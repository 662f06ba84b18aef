"""What the account says about a job before it is submitted. Reads only."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Protocol
from urllib.parse import unquote

from cloudft.aws.client import Aws
from cloudft.aws.commands import command
from cloudft.aws.permissions import refused, statement
from cloudft.backends.sagemaker import needs, request
from cloudft.errors import AwsDenied, AwsNotFound, AwsRefused, AwsUnreachable, CredentialsExpired
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding, Severity

SERVICE = "sagemaker.amazonaws.com"
ROLE, BUCKET = "sagemaker.role_arn", "sagemaker.s3_uri"


class Note(Protocol):
    """Makes a finding with its place in the job file."""

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """One finding."""


def findings(job: LoadedJob, aws: Aws, note: Note) -> list[Finding]:
    """Identity first; what may not be asked is said to be unchecked."""
    checks: tuple[tuple[str, str, Callable[..., Iterator[Finding]]], ...] = (
        ("the account", "sagemaker", _identity),
        ("the bucket", BUCKET, _bucket),
        ("the role", ROLE, _role),
        ("the role's permissions", ROLE, _permissions),
    )
    found: list[Finding] = []
    for what, field, check in checks:
        try:
            found += check(job, aws, note)
        except (AwsRefused, AwsUnreachable) as error:
            message = f"{what} could not be checked: {error.message}"
            found.append(note("CouldNotCheck", field, message, error.fix or "", "warning"))
            if check is _identity or isinstance(error, CredentialsExpired):
                break
    return found


def _identity(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    account, owner = str(identity["Account"]), str(job.spec.sagemaker.role_arn).split(":")[4]
    if owner and owner != account:
        message = f"the role belongs to account {owner}; you are in account {account}"
        fix = "name a role of this account, or use the other account's profile."
        yield note("WrongAccount", ROLE, message, fix)


def _bucket(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    bucket, owner = request.prefix_of(job)[0], request.bucket_owner(job)
    where = {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}
    region = aws.place.region
    try:
        answer = aws.call(f"{bucket} can't be looked at", "s3", "head_bucket", **where)
    except AwsNotFound:
        fix = f"`{command(aws, 's3', 'mb', f's3://{bucket}')}`, or correct {BUCKET}."
        yield note("NoBucket", BUCKET, f"there is no bucket {bucket}", fix)
        return
    except AwsDenied as error:
        fix = f"correct {BUCKET}, or set sagemaker.bucket_owner; you need s3:ListBucket."
        yield note("BucketDenied", BUCKET, error.message, fix)
        return
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    its = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or region
    if its != region:
        message = f"the bucket {bucket} is in {its}, the job in {region}"
        yield note("WrongRegion", BUCKET, message, f"take a bucket in {region}.")


def _role(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    name = str(job.spec.sagemaker.role_arn).rpartition("/")[2]
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Principal": {"Service": SERVICE}, "Action": "sts:AssumeRole"}
        ],
    }
    fix = "its trust policy: " + json.dumps(trust)
    try:
        answer = aws.call(f"the role {name} can't be looked at", "iam", "get_role", RoleName=name)
    except AwsNotFound:
        yield note("NoRole", ROLE, f"there is no role {name}", f"make it with {fix}")
        return
    document = answer["Role"]["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    if not any(_trusts(statement) for statement in _listed(policy.get("Statement", []))):
        yield note("RoleNotTrusted", ROLE, f"{SERVICE} may not assume the role {name}", fix)


def _trusts(statement: dict[str, Any]) -> bool:
    principal = statement.get("Principal", {})
    services = principal.get("Service", []) if isinstance(principal, dict) else []
    return statement.get("Effect") == "Allow" and SERVICE in _listed(services)


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _permissions(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """What the role must be allowed, by the policy simulator."""
    role = str(job.spec.sagemaker.role_arn)
    for need, decision in refused(aws, role, needs.of_role(job, str(aws.place.region))):
        message = f"the role may not {need.action} on {need.resource} ({decision})"
        fix = "add to its policy: " + json.dumps(statement(need))
        yield note("RoleDenied", ROLE, message, fix, need.severity)
