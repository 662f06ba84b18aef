"""Check the account before a job is submitted to SageMaker. Reads only."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends.aws_base import account_checks
from cloudft.backends.aws_base.account_checks import AccountCheck, MakeFinding, TrainingService
from cloudft.backends.sagemaker import request, required_permissions
from cloudft.errors import CloudRefused, CloudUnreachable
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

SERVICE = required_permissions.SERVICE
SAGEMAKER = TrainingService("sagemaker", "SageMaker", SERVICE, ("training-job",))
ROLE, BUCKET, KEY = "sagemaker.role_arn", "sagemaker.s3_uri", "sagemaker.kms_key_id"


def check_account(job: LoadedJob, aws: Aws, finding: MakeFinding, image: str = "") -> list[Finding]:
    """Check the account. Without an identity, nothing else is checked.

    `image` is the URI of the job's image.
    """
    try:
        identity = aws.call("can't get the caller identity", "sts", "get_caller_identity")
    except (CloudRefused, CloudUnreachable) as error:
        return [account_checks.unchecked_finding("the account", "sagemaker", error, finding)]
    role, account = str(job.spec.sagemaker.role_arn), str(identity["Account"])
    findings = list(account_checks.check_role_account(role, account, ROLE, finding))

    def permissions(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
        permissions_needed = required_permissions.role_permissions(
            job, str(aws.location.region), _keys_by_use(job, aws), image
        )
        yield from account_checks.check_role_permissions(
            role, permissions_needed, aws, finding, SAGEMAKER
        )

    checks: tuple[AccountCheck, ...] = (
        ("the bucket", BUCKET, _check_bucket),
        ("the bucket's public access", BUCKET, _check_public_access),
        ("the role", ROLE, _check_role),
        ("the keys", KEY, _check_keys),
        ("the role's permissions", ROLE, permissions),
        ("your permissions", "sagemaker", _check_caller),
    )
    return [*findings, *account_checks.run_checks(checks, job, aws, finding)]


def _expected_bucket(job: LoadedJob) -> dict[str, str]:
    """Return the bucket, and the account that it must belong to where that is known."""
    bucket, owner = request.s3_prefix(job)[0], request.expected_bucket_owner(job)
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


def _check_bucket(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    yield from account_checks.check_bucket(_expected_bucket(job), BUCKET, aws, finding, SAGEMAKER)


def _check_public_access(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    try:
        yield from account_checks.check_public_access(_expected_bucket(job), BUCKET, aws, finding)
    except CloudRefused as error:
        if "NoSuchBucket" not in error.message:  # _bucket has said so
            raise


def _check_role(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    yield from account_checks.check_role(str(job.spec.sagemaker.role_arn), aws, finding, SAGEMAKER)


def _check_keys(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    """Check the keys of the job file, and the bucket's default key."""
    spec = job.spec.sagemaker
    named = {spec.s3_kms_key_id: "s3_kms_key_id", spec.kms_key_id: "kms_key_id"}
    named = {_default_key(job, aws): "s3_uri"} | named
    for key, field in named.items():
        if key is not None:
            yield from account_checks.check_key(
                key, SAGEMAKER.field_path(field), aws, finding, SAGEMAKER
            )


def _default_key(job: LoadedJob, aws: Aws) -> str | None:
    try:
        return account_checks.get_default_key(aws, _expected_bucket(job))
    except CloudRefused as error:
        if "NoSuchBucket" in error.message:  # _bucket has said so
            return None
        raise


def _keys_by_use(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """Return the ARN of each key by its use: uploads, checkpoints, output.

    SageMaker encrypts its output with the job's key, checkpoints with the bucket's default key.
    """
    spec, default = job.spec.sagemaker, _default_key(job, aws)
    named = {
        "sent": spec.s3_kms_key_id or default,
        "checkpoints": default,
        "output": spec.kms_key_id or default,
    }
    return {use: account_checks.resolve_key_arn(aws, key) for use, key in named.items() if key}


def _check_caller(job: LoadedJob, aws: Aws, finding: MakeFinding) -> Iterator[Finding]:
    permissions_needed = required_permissions.caller_permissions(job, str(aws.location.region))
    yield from account_checks.check_caller_permissions(permissions_needed, aws, finding, SAGEMAKER)
