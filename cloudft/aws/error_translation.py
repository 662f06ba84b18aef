"""Translate botocore's exceptions and AWS's error codes to cloudft's errors, each with a fix."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterator
from typing import Protocol, cast

from cloudft.aws.botocore_errors import Response, error_kind
from cloudft.errors import (
    ClockSkewed,
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    PermissionDenied,
    QuotaExceeded,
    ResourceConflict,
    ResourceNotFound,
)

RETRYABLE_CODES = {
    *("InternalError", "InternalFailure", "InternalServerError", "InternalServerException"),
    *("ModelNotReadyException", "ServiceUnavailable", "ServiceUnavailableException"),
    *("RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete"),
    *("Throttling", "ThrottlingException", "ThrottledException", "EC2ThrottledException"),
    *("RequestThrottled", "RequestThrottledException", "RequestLimitExceeded", "SlowDown"),
    *("TooManyRequestsException", "BandwidthLimitExceeded", "TransactionInProgressException"),
    "ProvisionedThroughputExceededException",
}
"""Error codes worth a retry: those that botocore's standard mode retries, and a few more.

LimitExceededException, which botocore retries, is left out: CloudFormation and IAM use it for an
exceeded quota.
"""
RETRYABLE_STATUSES = {408, 429, *range(500, 600)} - {501, 505}
"""HTTP statuses worth a retry. 501 is not: a service won't learn an operation that it lacks."""
EXPIRED_CREDENTIALS_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "UnauthorizedException"),
    "RequestExpired",
}
INVALID_SIGNATURE_CODES = {
    *("AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"),
}
"""The access key or its signature is not accepted. Granting a permission would not help."""
ACCESS_DENIED_CODES = {
    *("403", "AccessDenied", "AccessDeniedException", "AuthorizationError"),
    "UnauthorizedOperation",
}
CLOCK_SKEW_CODES = {"RequestTimeTooSkewed", "RequestInTheFuture"}
MAX_CLOCK_SKEW_S = 240.0
"""Services refuse requests dated more than 5 minutes wrong (S3: 15). One minute is left for the
request's way."""
NOT_FOUND_CODES = {
    *("404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFoundException"),
    *("ResourceNotFoundException", "ResourceNotFound", "NoSuchResourceException"),
    *("ExecutionDoesNotExist", "StateMachineDoesNotExist"),
}
CONFLICT_CODES = {
    *("ConflictException", "ResourceInUseException"),  # Bedrock; moto's Bedrock
    *("ResourceInUse", "ExecutionAlreadyExists"),  # SageMaker; Step Functions
}
NAME_IN_USE = re.compile(r"\bname\b.*\b(in use|already exists)\b", re.I)
"""Message of a ValidationException by which Bedrock refuses a name in use: "The provided job name
is currently in use." Its service model lists a ConflictException for that, so both are conflicts.
Source: Airflow's Bedrock operator; aws/sagemaker-python-sdk, pull request 6076."""
QUOTA_CODES = {"ServiceQuotaExceededException", "ResourceLimitExceeded"}
ZERO_QUOTA = "is 0 Instances"
"""Part of SageMaker's message for an instance type that the account may not use at all."""
BEARER_TOKEN = "AWS_BEARER_TOKEN_BEDROCK"
IAM_PREFIXES = {
    "bedrock-runtime": "bedrock",
    "service-quotas": "servicequotas",
    "stepfunctions": "states",
}
"""Prefix of a service's IAM actions, where it is not boto3's name of the service."""
IAM_ACTIONS = {
    "Converse": "InvokeModel",
    "ConverseStream": "InvokeModelWithResponseStream",
    "CompleteMultipartUpload": "PutObject",
    "CreateMultipartUpload": "PutObject",
    "GetBucketEncryption": "GetEncryptionConfiguration",
    "GetPublicAccessBlock": "GetBucketPublicAccessBlock",
    "HeadBucket": "ListBucket",
    "HeadObject": "GetObject",
    "ListMultipartUploads": "ListBucketMultipartUploads",
    "ListObjectsV2": "ListBucket",
    "ListParts": "ListMultipartUploadParts",
    "UploadPart": "PutObject",
}
"""IAM action that allows an operation, where it has another name.

Source: service authorization reference, "Actions, resources, and condition keys" of Amazon S3 and
Amazon Bedrock.
"""
DENIED_ACTION = re.compile(r"not authorized to perform: (?P<action>[a-z0-9-]+:\w+)")
DENIED_PRINCIPAL = re.compile(r"User: (?P<arn>arn:\S+) is not authorized")


class ServiceError(Protocol):
    """An error response of a service, as botocore's ClientError carries it."""

    response: Response
    operation_name: str


@contextlib.contextmanager
def translate_aws_errors(
    failure: str, profile: str | None = None, service: str | None = None
) -> Iterator[None]:
    """Raise CloudRefused or CloudUnreachable in place of botocore's exceptions.

    `failure` begins the message, such as "the models can't be listed". `service` is boto3's name of
    the service that is called, from which follows the IAM action that a denied operation needs.
    """
    try:
        yield
    except Exception as error:
        translated = _translate(failure, error, profile, service)
        if translated is None:
            raise
        raise translated from error


def is_transient(error: BaseException) -> bool:
    """Return whether a service's error response is worth a retry."""
    response = cast("ServiceError", error)
    return _error_code(response) in RETRYABLE_CODES or _http_status(response) in RETRYABLE_STATUSES


def _error_code(error: ServiceError) -> str:
    code = str(error.response.get("Error", {}).get("Code", ""))
    # An error within an event stream is named by its member, not by its shape: throttlingException.
    return code[:1].upper() + code[1:] if code.endswith("Exception") else code


def _http_status(error: ServiceError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _translate(
    failure: str, error: Exception, profile: str | None, service: str | None
) -> CloudRefused | CloudUnreachable | None:
    """Return cloudft's error for one of botocore's; None for an exception of other code."""
    kind, message = error_kind(error), f"{failure}: {error}"
    if kind == "answer":
        return _translate_response(failure, cast("ServiceError", error), profile, service)
    if kind in ("offline", "foreign"):
        fix = "check the network and the proxy (HTTPS_PROXY, AWS_CA_BUNDLE); try again."
        return CloudUnreachable(message, fix=fix)
    if kind == "unreachable":
        return CloudUnreachable(message, fix="check the network; try again.")
    if kind == "no-credentials":
        return _no_credentials_error(failure)
    if kind == "login":
        return _expired_credentials_error(message, profile)
    return None if kind is None else CloudRefused(message, fix="check the AWS settings.")


def _no_credentials_error(failure: str) -> CloudRefused:
    fix = "`aws configure`, or set AWS_PROFILE."
    if BEARER_TOKEN in os.environ:
        fix += f" {BEARER_TOKEN} is not used: it signs Bedrock alone, not S3, IAM and STS."
    return CloudRefused(f"{failure}: there are no AWS credentials", fix=fix)


def _translate_response(
    failure: str, error: ServiceError, profile: str | None, service: str | None
) -> CloudRefused | CloudUnreachable:
    """Return cloudft's error for a service's error response, by its code."""
    code = _error_code(error)
    message = f"{failure}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    credentials = _credentials_error(code, message, error, profile)
    if credentials is not None:
        return credentials
    if is_transient(cast("BaseException", error)):
        return CloudUnreachable(message, fix="try again in a while.")
    if code in QUOTA_CODES and ZERO_QUOTA not in message:
        return QuotaExceeded(message, fix="wait for a running job, or ask AWS to raise the quota.")
    if code in QUOTA_CODES:
        return CloudRefused(message, fix="request a quota for that instance type (Service Quotas).")
    if code in ACCESS_DENIED_CODES:
        return PermissionDenied(message, fix=_grant_fix(error, message, service))
    if code in NOT_FOUND_CODES:
        return ResourceNotFound(message, fix="check the name and the Region.")
    if code in CONFLICT_CODES or (code == "ValidationException" and NAME_IN_USE.search(message)):
        return ResourceConflict(message, fix="check what has that name, or choose another name.")
    return CloudRefused(message, fix="check the name and your permissions.")


def _credentials_error(
    code: str, message: str, error: ServiceError, profile: str | None
) -> CloudRefused | None:
    """Return the error for a code that is about credentials, or about the clock; else None."""
    skew = None
    if code in EXPIRED_CREDENTIALS_CODES | INVALID_SIGNATURE_CODES | CLOCK_SKEW_CODES:
        skew = _clock_skew_seconds(error)
    if skew is not None or code in CLOCK_SKEW_CODES:
        return _clock_skew_error(message, skew)
    if code in EXPIRED_CREDENTIALS_CODES:
        return _expired_credentials_error(message, profile)
    if code in INVALID_SIGNATURE_CODES:
        fix = "check the access key and its secret: `aws configure list` shows where they are from."
        return PermissionDenied(message, fix=fix)
    return None


def _grant_fix(error: ServiceError, message: str, service: str | None) -> str:
    """Return which IAM action to grant to whom.

    AWS's own message names both for most operations. Where it does not (S3), the action follows
    from the operation.
    """
    named = DENIED_ACTION.search(message)
    principal = DENIED_PRINCIPAL.search(message)
    if named:
        action = named["action"]
    else:
        operation = error.operation_name
        action = IAM_ACTIONS.get(operation, operation)
        if service is not None:
            action = f"{IAM_PREFIXES.get(service, service)}:{action}"
    return f"grant {action} to {principal['arn'] if principal else 'the identity that you use'}."


def _clock_skew_seconds(error: ServiceError) -> float | None:
    """Return how far this machine's clock is ahead of AWS's, in seconds.

    None where they agree or the response has no date. A wrong clock is refused with the codes of
    expired credentials or of a wrong secret, so only the response's date reveals it.
    """
    from email.utils import parsedate_to_datetime

    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        skew = time.time() - parsedate_to_datetime(str(date)).timestamp()
    except (TypeError, ValueError):
        return None
    return skew if abs(skew) > MAX_CLOCK_SKEW_S else None


def _clock_skew_error(message: str, skew: float | None) -> ClockSkewed:
    difference = "wrong"
    if skew is not None:
        side = "ahead of" if skew > 0 else "behind"
        difference = f"{abs(skew) / 60:.0f} minutes {side} AWS's"
    fix = "set the clock (`sudo timedatectl set-ntp true`, or the system's settings); try again."
    return ClockSkewed(f"{message} (this machine's clock is {difference})", fix=fix)


def _expired_credentials_error(message: str, profile: str | None) -> CredentialsExpired:
    profile = profile or os.environ.get("AWS_PROFILE")
    option = f" --profile {profile}" if profile else ""
    fix = f"log in again: `aws sso login{option}` (or renew the keys)."
    return CredentialsExpired(message, fix=fix)
