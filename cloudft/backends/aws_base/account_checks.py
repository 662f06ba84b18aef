"""Checks of an account that every training service shares. Reads only.

A check yields findings. A read that is refused raises; `run_checks` turns it into a warning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import unquote

from cloudft.aws.aws_cli import aws_cli_command
from cloudft.aws.client import Aws
from cloudft.aws.permissions import (
    RequiredPermission,
    denied_permissions,
    policy_statement,
    principal_arn,
)
from cloudft.errors import (
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    PermissionDenied,
    ResourceNotFound,
)
from cloudft.spec.load import LoadedJob
from cloudft.types import COULD_NOT_REACH, Finding, Severity

KEY_COMMANDS = {
    "Disabled": ("enable-key",),
    "PendingDeletion": ("cancel-key-deletion", "enable-key"),  # it is disabled after the first
    "PendingReplicaDeletion": ("cancel-key-deletion", "enable-key"),
}
KEY_REMEDIES = {
    "PendingImport": "import its key material, or use another key.",
    "Unavailable": "connect its custom key store, or use another key.",
    "Creating": "wait a moment, then check again.",
    "Updating": "wait a moment, then check again.",
}
"""By KMS's `KeyState` (botocore 1.44.5; KMS developer guide, "Key states of AWS KMS keys")."""
AccountCheck = tuple[str, str, Callable[..., Iterator[Finding]]]
"""What is checked, the field that it is about, and the check."""


class MakeFinding(Protocol):
    """Return a finding about a field of the job file, with its line."""

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """Return one finding."""


@dataclass(frozen=True)
class TrainingService:
    """The service that trains: its section of the job file, its name, its service principal.

    `job_kinds` are the resource types that assume the role, as their ARNs name them.
    """

    section: str
    name: str
    principal: str
    job_kinds: tuple[str, ...]

    def field_path(self, name: str) -> str:
        """Return the dotted name of a field of its section."""
        return f"{self.section}.{name}"

    def trust_policy(
        self, region: str, role: str, jobs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return the trust policy that a role for its jobs needs, with a confused-deputy guard."""
        _, partition, _, _, account, *_ = role.split(":")
        prefix = f"arn:{partition}:{self.section}:{region}:{account}"
        sources = [f"{prefix}:{kind}/*" for kind in jobs or self.job_kinds]
        return {
            "Version": "2012-10-17",
            "Statement": [
                {
                    "Effect": "Allow",
                    "Principal": {"Service": self.principal},
                    "Action": "sts:AssumeRole",
                    "Condition": {
                        "StringEquals": {"aws:SourceAccount": account},
                        "ArnLike": {"aws:SourceArn": sources},
                    },
                }
            ],
        }


def run_checks(
    checks: Sequence[AccountCheck], job: LoadedJob, aws: Aws, finding: MakeFinding
) -> Iterator[Finding]:
    """Run each check; report those that could not run. Expired credentials end the run."""
    for what, field, check in checks:
        try:
            yield from list(check(job, aws, finding))
        except (CloudRefused, CloudUnreachable) as error:
            yield unchecked_finding(what, field, error, finding)
            if isinstance(error, CredentialsExpired):
                return


def unchecked_finding(
    what: str, field: str, error: CloudRefused | CloudUnreachable, finding: MakeFinding
) -> Finding:
    """Return the warning that a check could not run: refused, or unreachable for now."""
    message = f"{what} could not be checked: {error.message}"
    code = COULD_NOT_REACH if isinstance(error, CloudUnreachable) else "CouldNotCheck"
    return finding(code, field, message, error.fix or "", "warning")


def check_role_account(
    role: str, account: str, field: str, finding: MakeFinding
) -> Iterator[Finding]:
    """Yield a finding for a role of another account than the caller's."""
    owner = role.split(":")[4] if role else ""
    if owner and owner != account:
        message = f"the role belongs to account {owner}; you are in account {account}"
        fix = "name a role of this account, or use the other account's profile."
        yield finding("WrongAccount", field, message, fix)


def check_bucket(
    bucket: Mapping[str, str], field: str, aws: Aws, finding: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Yield a finding for a bucket that is missing, not yours, or in another Region."""
    name, region = bucket["Bucket"], aws.location.region
    try:
        answer = aws.call(f"can't read {name}", "s3", "head_bucket", **bucket)
    except ResourceNotFound:
        fix = f"`{aws_cli_command(aws, 's3', 'mb', f's3://{name}')}`, or correct {field}."
        yield finding("NoBucket", field, f"there is no bucket {name}", fix)
        return
    except PermissionDenied as error:
        message = (
            f"{error.message} (not yours, or not of account {bucket.get('ExpectedBucketOwner')})"
        )
        owner_field = service.field_path("bucket_owner")
        fix = f"correct {field}, or set {owner_field}; you need s3:ListBucket."
        yield finding("BucketDenied", field, message, fix)
        return
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    actual = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or region
    if actual != region:
        reason = f"{service.name} needs bucket and job in one Region"
        message = f"the bucket {name} is in {actual}, the job in {region}: {reason}"
        yield finding("WrongRegion", field, message, f"use a bucket in {region}.")


def check_public_access(
    bucket: Mapping[str, str], field: str, aws: Aws, finding: MakeFinding
) -> Iterator[Finding]:
    """Yield a finding for a bucket that could be made public."""
    name = bucket["Bucket"]
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    closed = ",".join(f"{one}=true" for one in names)
    words = ("s3api", "put-public-access-block", "--bucket", name)
    fix = f"`{aws_cli_command(aws, *words, '--public-access-block-configuration', closed)}`"
    what = f"can't read the public access of {name}"
    try:
        answer = aws.call(what, "s3", "get_public_access_block", **bucket)
        settings = answer["PublicAccessBlockConfiguration"]
    except CloudRefused as error:
        if "NoSuchPublicAccessBlockConfiguration" not in error.message:
            raise
        settings = {}
    if not (settings.get("BlockPublicPolicy") and settings.get("RestrictPublicBuckets")):
        message = f"{name} has no public access block: it could be made public"
        yield finding("BucketNotBlocked", field, message, fix, "warning")


def get_encryption_rules(aws: Aws, bucket: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Return the bucket's rules; none means S3's own encryption, which needs no permission."""
    what = f"can't read the encryption of {bucket['Bucket']}"
    try:
        rules = aws.call(what, "s3", "get_bucket_encryption", **bucket)
    except CloudRefused as error:
        if "ServerSideEncryptionConfigurationNotFound" not in error.message:
            raise
        return []
    return list(rules["ServerSideEncryptionConfiguration"]["Rules"])


def get_default_key(aws: Aws, bucket: Mapping[str, str]) -> str | None:
    """Return the KMS key of the bucket's default encryption, or None."""
    for rule in get_encryption_rules(aws, bucket):
        key = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")
        if key is not None:
            return str(key)
    return None


def resolve_key_arn(aws: Aws, key: str) -> str:
    """Return the ARN of a key that is named by alias or by id."""
    if key.startswith("arn:") and ":key/" in key:
        return key
    answer = aws.call(f"can't read {key}", "kms", "describe_key", KeyId=key)
    return str(answer["KeyMetadata"]["Arn"])


def check_role(
    arn: str, aws: Aws, finding: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Yield a finding for a role that is missing, or that the service may not assume here."""
    field, name = service.field_path("role_arn"), arn.rpartition("/")[2]
    trust = json.dumps(service.trust_policy(str(aws.location.region), arn))
    try:
        answer = aws.call(f"can't read the role {name}", "iam", "get_role", RoleName=name)
    except ResourceNotFound:
        fix = f"create it with this trust policy: {trust}"
        yield finding("NoRole", field, f"there is no role {name}", fix)
        return
    document = answer["Role"]["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    fix = f"trust policy: {trust}"
    trusting = [s for s in _statements(policy) if _trusts(s, service.principal)]
    if not trusting:
        message = f"{service.principal} may not assume the role {name}"
        yield finding("RoleNotTrusted", field, message, fix)
        return
    for statement in trusting:
        yield from _check_conditions(statement, arn, aws, fix, finding, service)


def _statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    statements = policy.get("Statement", [])
    return [statements] if isinstance(statements, Mapping) else list(statements)


def _trusts(statement: Mapping[str, Any], principal: str) -> bool:
    named = statement.get("Principal", {})
    services = named.get("Service", []) if isinstance(named, Mapping) else []
    return statement.get("Effect") == "Allow" and principal in _list(services)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _check_conditions(
    statement: Mapping[str, Any],
    arn: str,
    aws: Aws,
    fix: str,
    finding: MakeFinding,
    service: TrainingService,
) -> Iterator[Finding]:
    """Yield a finding for a trust condition of another account or Region: it locks the job out."""
    field, name = service.field_path("role_arn"), arn.rpartition("/")[2]
    account, region = arn.split(":")[4], str(aws.location.region)
    conditions = {
        key.lower(): _list(value)
        for operator in statement.get("Condition", {}).values()
        for key, value in operator.items()
    }
    accounts = conditions.get("aws:sourceaccount")
    if accounts and account not in accounts:
        message = f"the trust of {name} requires aws:SourceAccount {accounts}, not {account}"
        yield finding("RoleNotTrusted", field, message, fix)
    for pattern in conditions.get("aws:sourcearn", ()):
        parts = pattern.split(":")
        if len(parts) < 6 or parts[3] not in ("*", region) or parts[4] not in ("*", account):
            message = (
                f"the trust of {name} requires aws:SourceArn {pattern}: no job here matches it"
            )
            yield finding("RoleNotTrusted", field, message, fix)
    if not conditions:
        message = f"any account's {service.name} may assume {name}: its trust has no condition"
        yield finding("RoleOpen", field, message, fix, "warning")


def check_key(
    name: str, field: str, aws: Aws, finding: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Yield a finding for a key that is missing, disabled, or not symmetric."""
    try:
        answer = aws.call(f"can't read {name}", "kms", "describe_key", KeyId=name)
    except ResourceNotFound:
        fix = f"`{aws_cli_command(aws, 'kms', 'list-aliases')}` shows the keys."
        yield finding("NoKey", field, f"there is no key {name} in {aws.location.region}", fix)
        return
    metadata = answer["KeyMetadata"]
    state = metadata.get("KeyState", "Enabled")
    if state != "Enabled":
        fix = key_remedy(aws, state, metadata["KeyId"])
        yield finding("KeyDisabled", field, f"the key {name} is {state}", fix)
    if metadata.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        message = f"the key {name} is {metadata['KeySpec']}: {service.name} needs a symmetric key"
        yield finding("KeyNotSymmetric", field, message, "use a symmetric key.")


def key_remedy(aws: Aws, state: str, key_id: str) -> str:
    """Return how a KMS key in that state becomes usable again."""
    words = KEY_COMMANDS.get(state, ())
    commands = " && ".join(aws_cli_command(aws, "kms", word, "--key-id", key_id) for word in words)
    return f"`{commands}`, or use another key." if commands else KEY_REMEDIES[state]


def check_role_permissions(
    arn: str,
    permissions: Iterable[RequiredPermission],
    aws: Aws,
    finding: MakeFinding,
    service: TrainingService,
) -> Iterator[Finding]:
    """Yield a finding for each permission that the role lacks, with the missing statement."""
    for permission, decision in denied_permissions(aws, arn, permissions):
        message = f"the role may not {permission.action} on {permission.resource} ({decision})"
        if permission.severity == "warning":
            message += "; a policy of the resource itself may still allow it"
        fix = "add to the role's policy: " + json.dumps(policy_statement(permission))
        yield finding(
            "RoleDenied", service.field_path("role_arn"), message, fix, permission.severity
        )


def check_caller_permissions(
    permissions: Iterable[RequiredPermission],
    aws: Aws,
    finding: MakeFinding,
    service: TrainingService,
) -> Iterator[Finding]:
    """Yield a finding for each permission that the caller lacks."""
    identity = aws.call("can't get the caller identity", "sts", "get_caller_identity")
    principal = principal_arn(str(identity["Arn"]))
    if principal.endswith(":root"):  # the simulator accepts no root user, who has every permission
        return
    for permission, decision in denied_permissions(aws, principal, permissions):
        message = f"{principal} may not {permission.action} on {permission.resource} ({decision})"
        fix = "grant this to yourself, or have it granted: " + json.dumps(
            policy_statement(permission)
        )
        yield finding("CallerDenied", service.section, message, fix, permission.severity)
