"""What the checks of an account share, whichever service trains there. Reads only.

A check yields findings; what may not be asked raises, and `run` says so: that is no failure.
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
    "PendingImport": "import its key material, or take another key.",
    "Unavailable": "connect its custom key store, or take another key.",
    "Creating": "wait a moment, then check again.",
    "Updating": "wait a moment, then check again.",
}
"""By KMS's `KeyState` (botocore 1.44.5; KMS developer guide, "Key states of AWS KMS keys")."""
AccountCheck = tuple[str, str, Callable[..., Iterator[Finding]]]
"""What is looked at, the field that it is about, and the look."""


class MakeFinding(Protocol):
    """Makes a finding with its place in the job file."""

    def __call__(
        self, code: str, field: str, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """One finding."""


@dataclass(frozen=True)
class TrainingService:
    """The service that trains: its section of the job file, its name, its principal.

    `jobs` is what takes the role on, as its ARNs name it.
    """

    section: str
    name: str
    principal: str
    job_kinds: tuple[str, ...]

    def field_path(self, name: str) -> str:
        """Return a field of its section."""
        return f"{self.section}.{name}"

    def trust_policy(
        self, region: str, role: str, jobs: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return the trust that a role for its jobs needs, guarded against a confused deputy."""
        _, partition, _, _, account, *_ = role.split(":")
        place = f"arn:{partition}:{self.section}:{region}:{account}"
        sources = [f"{place}:{kind}/*" for kind in jobs or self.job_kinds]
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
    checks: Sequence[AccountCheck], job: LoadedJob, aws: Aws, note: MakeFinding
) -> Iterator[Finding]:
    """Make each check; say what could not be made. Credentials that have expired end it."""
    for what, field, check in checks:
        try:
            yield from list(check(job, aws, note))
        except (CloudRefused, CloudUnreachable) as error:
            yield unchecked_finding(what, field, error, note)
            if isinstance(error, CredentialsExpired):
                return


def unchecked_finding(
    what: str, field: str, error: CloudRefused | CloudUnreachable, note: MakeFinding
) -> Finding:
    """Return the finding that something could not be read: refused, or out of reach for now."""
    message = f"{what} could not be checked: {error.message}"
    code = COULD_NOT_REACH if isinstance(error, CloudUnreachable) else "CouldNotCheck"
    return note(code, field, message, error.fix or "", "warning")


def check_role_account(role: str, account: str, field: str, note: MakeFinding) -> Iterator[Finding]:
    """Find a role of another account than the one that the keys are of."""
    owner = role.split(":")[4] if role else ""
    if owner and owner != account:
        message = f"the role belongs to account {owner}; you are in account {account}"
        fix = "name a role of this account, or use the other account's profile."
        yield note("WrongAccount", field, message, fix)


def check_bucket(
    where: Mapping[str, str], field: str, aws: Aws, note: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Find a bucket that is not there, not yours, or in another Region."""
    name, region = where["Bucket"], aws.location.region
    try:
        answer = aws.call(f"{name} can't be looked at", "s3", "head_bucket", **where)
    except ResourceNotFound:
        fix = f"`{aws_cli_command(aws, 's3', 'mb', f's3://{name}')}`, or correct {field}."
        yield note("NoBucket", field, f"there is no bucket {name}", fix)
        return
    except PermissionDenied as error:
        message = (
            f"{error.message} (not yours, or not of account {where.get('ExpectedBucketOwner')})"
        )
        fix = (
            f"correct {field}, or set {service.field_path('bucket_owner')}; you need s3:ListBucket."
        )
        yield note("BucketDenied", field, message, fix)
        return
    headers = answer["ResponseMetadata"]["HTTPHeaders"]
    its = answer.get("BucketRegion") or headers.get("x-amz-bucket-region") or region
    if its != region:
        wants = f"{service.name} wants one Region"
        message = f"the bucket {name} is in {its}, the job in {region}: {wants}"
        yield note("WrongRegion", field, message, f"take a bucket in {region}.")


def check_public_access(
    where: Mapping[str, str], field: str, aws: Aws, note: MakeFinding
) -> Iterator[Finding]:
    """Find a bucket that could be made public."""
    name = where["Bucket"]
    names = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    closed = ",".join(f"{one}=true" for one in names)
    words = ("s3api", "put-public-access-block", "--bucket", name)
    fix = f"`{aws_cli_command(aws, *words, '--public-access-block-configuration', closed)}`"
    what = f"the public access of {name} can't be looked at"
    try:
        answer = aws.call(what, "s3", "get_public_access_block", **where)
        settings = answer["PublicAccessBlockConfiguration"]
    except CloudRefused as error:
        if "NoSuchPublicAccessBlockConfiguration" not in error.message:
            raise
        settings = {}
    if not (settings.get("BlockPublicPolicy") and settings.get("RestrictPublicBuckets")):
        message = f"nothing keeps {name} from being made public"
        yield note("BucketNotBlocked", field, message, fix, "warning")


def get_encryption_rules(aws: Aws, where: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """Return the bucket's rules; none is S3's own encryption, which asks nothing of the role."""
    what = f"the encryption of {where['Bucket']} can't be looked at"
    try:
        rules = aws.call(what, "s3", "get_bucket_encryption", **where)
    except CloudRefused as error:
        if "ServerSideEncryptionConfigurationNotFound" not in error.message:
            raise
        return []
    return list(rules["ServerSideEncryptionConfiguration"]["Rules"])


def get_default_key(aws: Aws, where: Mapping[str, str]) -> str | None:
    """Return the KMS key that the bucket encrypts with where nothing else is said."""
    for rule in get_encryption_rules(aws, where):
        key = rule.get("ApplyServerSideEncryptionByDefault", {}).get("KMSMasterKeyID")
        if key is not None:
            return str(key)
    return None


def resolve_key_arn(aws: Aws, key: str) -> str:
    """Return the ARN of a key: of an alias, of an id alone."""
    if key.startswith("arn:") and ":key/" in key:
        return key
    answer = aws.call(f"{key} can't be looked at", "kms", "describe_key", KeyId=key)
    return str(answer["KeyMetadata"]["Arn"])


def check_role(
    arn: str, aws: Aws, note: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Find a role that is not there, or that the service may not assume for a job here."""
    field, name = service.field_path("role_arn"), arn.rpartition("/")[2]
    trust = json.dumps(service.trust_policy(str(aws.location.region), arn))
    try:
        answer = aws.call(f"the role {name} can't be looked at", "iam", "get_role", RoleName=name)
    except ResourceNotFound:
        fix = f"make it with this trust policy: {trust}"
        yield note("NoRole", field, f"there is no role {name}", fix)
        return
    document = answer["Role"]["AssumeRolePolicyDocument"]
    policy = json.loads(unquote(document)) if isinstance(document, str) else document
    fix = f"trust policy: {trust}"
    trusting = [s for s in _statements(policy) if _trusts(s, service.principal)]
    if not trusting:
        message = f"{service.principal} may not assume the role {name}"
        yield note("RoleNotTrusted", field, message, fix)
        return
    for one in trusting:
        yield from _check_conditions(one, arn, aws, fix, note, service)


def _statements(policy: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    statements = policy.get("Statement", [])
    return [statements] if isinstance(statements, Mapping) else list(statements)


def _trusts(one: Mapping[str, Any], principal: str) -> bool:
    named = one.get("Principal", {})
    services = named.get("Service", []) if isinstance(named, Mapping) else []
    return one.get("Effect") == "Allow" and principal in _list(services)


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _check_conditions(
    one: Mapping[str, Any],
    arn: str,
    aws: Aws,
    fix: str,
    note: MakeFinding,
    service: TrainingService,
) -> Iterator[Finding]:
    """A confused-deputy guard that names another account or Region locks the job out."""
    field, name = service.field_path("role_arn"), arn.rpartition("/")[2]
    account, region = arn.split(":")[4], str(aws.location.region)
    conditions = {
        key.lower(): _list(value)
        for operator in one.get("Condition", {}).values()
        for key, value in operator.items()
    }
    accounts = conditions.get("aws:sourceaccount")
    if accounts and account not in accounts:
        message = f"the trust of {name} asks for aws:SourceAccount {accounts}, not {account}"
        yield note("RoleNotTrusted", field, message, fix)
    for pattern in conditions.get("aws:sourcearn", ()):
        parts = pattern.split(":")
        if len(parts) < 6 or parts[3] not in ("*", region) or parts[4] not in ("*", account):
            message = f"the trust of {name} asks for aws:SourceArn {pattern}: no job here has it"
            yield note("RoleNotTrusted", field, message, fix)
    if not conditions:
        message = f"any account's {service.name} may assume {name}: its trust has no condition"
        yield note("RoleOpen", field, message, fix, "warning")


def check_key(
    name: str, field: str, aws: Aws, note: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Find a key that is not there, does not work, or is not symmetric."""
    try:
        answer = aws.call(f"{name} can't be looked at", "kms", "describe_key", KeyId=name)
    except ResourceNotFound:
        fix = f"`{aws_cli_command(aws, 'kms', 'list-aliases')}` shows the keys."
        yield note("NoKey", field, f"there is no key {name} in {aws.location.region}", fix)
        return
    told = answer["KeyMetadata"]
    state = told.get("KeyState", "Enabled")
    if state != "Enabled":
        fix = key_remedy(aws, state, told["KeyId"])
        yield note("KeyDisabled", field, f"the key {name} is {state}", fix)
    if told.get("KeySpec", "SYMMETRIC_DEFAULT") != "SYMMETRIC_DEFAULT":
        message = f"the key {name} is {told['KeySpec']}: {service.name} wants a symmetric one"
        yield note("KeyNotSymmetric", field, message, "take a symmetric key.")


def key_remedy(aws: Aws, state: str, key_id: str) -> str:
    """Return how a KMS key of that state becomes usable again."""
    words = KEY_COMMANDS.get(state, ())
    commands = " && ".join(aws_cli_command(aws, "kms", word, "--key-id", key_id) for word in words)
    return f"`{commands}`, or take another key." if commands else KEY_REMEDIES[state]


def check_role_permissions(
    arn: str,
    wanted: Iterable[RequiredPermission],
    aws: Aws,
    note: MakeFinding,
    service: TrainingService,
) -> Iterator[Finding]:
    """Find each permission that the role lacks, by name, with the statement that gives it."""
    for need, decision in denied_permissions(aws, arn, wanted):
        message = f"the role may not {need.action} on {need.resource} ({decision})"
        if need.severity == "warning":
            message += "; what it acts on may allow it by a policy of its own"
        fix = "add to the role's policy: " + json.dumps(policy_statement(need))
        yield note("RoleDenied", service.field_path("role_arn"), message, fix, need.severity)


def check_caller_permissions(
    wanted: Iterable[RequiredPermission], aws: Aws, note: MakeFinding, service: TrainingService
) -> Iterator[Finding]:
    """Find what you yourself may not do."""
    identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    principal = principal_arn(str(identity["Arn"]))
    if principal.endswith(":root"):  # the simulator takes no root user, and denies it nothing
        return
    for need, decision in denied_permissions(aws, principal, wanted):
        message = f"{principal} may not {need.action} on {need.resource} ({decision})"
        fix = "ask for: " + json.dumps(policy_statement(need))
        yield note("CallerDenied", service.section, message, fix, need.severity)
