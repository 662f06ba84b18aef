"""What the account says about a job before it is submitted. Reads only."""

from __future__ import annotations

from collections.abc import Iterator

from cloudft.aws.client import Aws
from cloudft.backends import account_checks
from cloudft.backends.account_checks import Check, Note, Service
from cloudft.backends.sagemaker import needs, request
from cloudft.errors import AwsRefused, AwsUnreachable
from cloudft.spec.load import LoadedJob
from cloudft.types import Finding

SERVICE = needs.SERVICE
SAGEMAKER = Service("sagemaker", "SageMaker", SERVICE, ("training-job",))
ROLE, BUCKET, KEY = "sagemaker.role_arn", "sagemaker.s3_uri", "sagemaker.kms_key_id"


def findings(job: LoadedJob, aws: Aws, note: Note, image: str = "") -> list[Finding]:
    """Identity first: without one nothing else is asked. `image`: the URI that the job runs."""
    try:
        identity = aws.call("the identity can't be looked up", "sts", "get_caller_identity")
    except (AwsRefused, AwsUnreachable) as error:
        return [account_checks.unchecked("the account", "sagemaker", error, note)]
    role, account = str(job.spec.sagemaker.role_arn), str(identity["Account"])
    found = list(account_checks.wrong_account(role, account, ROLE, note))

    def permissions(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
        wanted = needs.of_role(job, str(aws.place.region), _keys(job, aws), image)
        yield from account_checks.role_may(role, wanted, aws, note, SAGEMAKER)

    checks: tuple[Check, ...] = (
        ("the bucket", BUCKET, _bucket),
        ("the bucket's openness", BUCKET, _openness),
        ("the role", ROLE, _role),
        ("the keys", KEY, _each_key),
        ("the role's permissions", ROLE, permissions),
        ("your permissions", "sagemaker", _caller),
    )
    return [*found, *account_checks.run(checks, job, aws, note)]


def _where(job: LoadedJob) -> dict[str, str]:
    """The bucket, and the account that it must belong to where that is known."""
    bucket, owner = request.prefix_of(job)[0], request.bucket_owner(job)
    return {"Bucket": bucket, **({"ExpectedBucketOwner": owner} if owner else {})}


def _bucket(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    yield from account_checks.bucket(_where(job), BUCKET, aws, note, SAGEMAKER)


def _openness(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    try:
        yield from account_checks.openness(_where(job), BUCKET, aws, note)
    except AwsRefused as error:
        if "NoSuchBucket" not in error.message:  # _bucket has said so
            raise


def _role(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    yield from account_checks.role(str(job.spec.sagemaker.role_arn), aws, note, SAGEMAKER)


def _each_key(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    """The keys of the job file, and the one that the bucket encrypts with by itself."""
    spec = job.spec.sagemaker
    named = {spec.s3_kms_key_id: "s3_kms_key_id", spec.kms_key_id: "kms_key_id"}
    named = {_default_key(job, aws): "s3_uri"} | named
    for key, field in named.items():
        if key is not None:
            yield from account_checks.key(key, SAGEMAKER.field(field), aws, note, SAGEMAKER)


def _default_key(job: LoadedJob, aws: Aws) -> str | None:
    try:
        return account_checks.default_key(aws, _where(job))
    except AwsRefused as error:
        if "NoSuchBucket" in error.message:  # _bucket has said so
            return None
        raise


def _keys(job: LoadedJob, aws: Aws) -> dict[str, str]:
    """The ARN of each key by what it is for: what is sent, what is written, the disk.

    What SageMaker writes is encrypted by the job's key, checkpoints by the bucket's own.
    """
    spec, default = job.spec.sagemaker, _default_key(job, aws)
    named = {
        "sent": spec.s3_kms_key_id or default,
        "checkpoints": default,
        "output": spec.kms_key_id or default,
    }
    return {use: account_checks.key_arn(aws, key) for use, key in named.items() if key}


def _caller(job: LoadedJob, aws: Aws, note: Note) -> Iterator[Finding]:
    wanted = needs.of_caller(job, str(aws.place.region))
    yield from account_checks.caller_may(wanted, aws, note, SAGEMAKER)
