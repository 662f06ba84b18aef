"""AWS clients, made in one place: profile, Region, endpoint; retries; AWS's errors in our words."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from cloudft.aws.botocore_errors import (
    call_and_parse,
    error_kind,
    raise_on_foreign_response,
    raise_on_incomplete_items,
)
from cloudft.errors import (
    ClockSkewed,
    CloudRefused,
    CloudUnreachable,
    CredentialsExpired,
    NoSuchProfile,
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
"""Codes that are worth another try later: those that botocore's standard mode retries, and more.

Botocore's LimitExceededException is left out: CloudFormation and IAM mean a quota by it.
"""
EXPIRED_CREDENTIALS_CODES = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "UnauthorizedException"),
    "RequestExpired",
}
INVALID_SIGNATURE_CODES = {
    *("AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"),
}
"""The keys, or the signature that they made, are not accepted: no permission would help."""
ACCESS_DENIED_CODES = {
    *("403", "AccessDenied", "AccessDeniedException", "AuthorizationError"),
    "UnauthorizedOperation",
}
AUTH_SCHEME_PREFERENCE = "sigv4"
"""How requests are signed: as the identity of profile or environment, on every service.

With AWS_BEARER_TOKEN_BEDROCK in the environment botocore would sign Bedrock's requests with that
key and all others with the profile's: two identities, perhaps two accounts. This setting of the
client wins over the variable; AWS_AUTH_SCHEME_PREFERENCE does not (botocore 1.44.5).
"""
VALIDATED_SERVICES = ("bedrock", "sagemaker")
"""Services whose lists are held against their models."""
ENDPOINT_URL_FIX = "correct --endpoint-url, endpoint_url or AWS_ENDPOINT_URL, or the Region."
BEARER_TOKEN = "AWS_BEARER_TOKEN_BEDROCK"
CLOCK_SKEW_CODES = {"RequestTimeTooSkewed", "RequestInTheFuture"}
MAX_CLOCK_SKEW_S = 240.0
"""Services refuse requests that are dated 5 minutes wrong (S3: 15); one minute is for their way."""
NOT_FOUND_CODES = {"404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFoundException"} | {
    "ResourceNotFoundException",
    "ResourceNotFound",
    "ExecutionDoesNotExist",
    "StateMachineDoesNotExist",
}
CONFLICT_CODES = {
    "ConflictException",
    "ResourceInUseException",
    "ResourceInUse",
    "ExecutionAlreadyExists",
}
"""Bedrock's, moto's for it, SageMaker's and Step Functions'."""
NAME_IN_USE = re.compile(r"\bname\b.*\b(in use|already exists)\b", re.I)
"""Bedrock answers a taken name with a ValidationException: "The provided job name is
currently in use." (Airflow's Bedrock operator; aws/sagemaker-python-sdk, pull request 6076).
Its service model lists a ConflictException for that, so both are taken."""
QUOTA_CODES = {"ServiceQuotaExceededException", "ResourceLimitExceeded"}
ZERO_QUOTA = "is 0 Instances"
"""In SageMaker's words for a type of machine that the account may not use at all."""
RETRYABLE_STATUSES = {408, 429, *range(500, 600)} - {501, 505}
"""A service that does not know an operation (501) will not learn it."""
DEADLINE_S = 60.0
"""How long one call is tried again."""
OFFLINE_S = 10.0
"""The same while no connection comes about, or something else answers in AWS's place: that seldom
ends by itself, and a person waits."""
TRY_ONCE_KINDS = ("offline", "foreign")
"""Kinds of errors after which further calls are tried once, until one succeeds."""


@dataclass(frozen=True)
class AwsLocation:
    """Where AWS is: each part as the AWS CLI finds it when it is None."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


def create_client(service: str, location: AwsLocation | None = None, *, attempts: int = 5) -> Any:
    """A boto3 client with the AWS CLI's order of profile and Region; AWS_REGION counts too.

    A service's own address (AWS_ENDPOINT_URL_S3) stands above the one for all services. Raises
    AwsRefused for a profile that there is not, or when no Region is known.
    """
    from botocore.config import Config

    location = location or AwsLocation()
    check_endpoint_url(location.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        user_agent_extra="cloudft",
        auth_scheme_preference=AUTH_SCHEME_PREFERENCE,
    )
    own = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}" in os.environ
    with _translate_settings_errors(location):
        made = create_session(location).client(
            service, config=config, endpoint_url=None if own else location.endpoint_url
        )
    made.meta.events.register("before-parse", raise_on_foreign_response)
    if service in VALIDATED_SERVICES:
        made.meta.events.register("after-call", raise_on_incomplete_items)
    return made


def create_session(location: AwsLocation) -> Any:
    """Return a boto3 session at that place. Raises AwsRefused for a profile that there is not."""
    import boto3
    import botocore.session

    region = location.region or os.environ.get("AWS_REGION") or None
    with _translate_settings_errors(location):
        core = botocore.session.get_session()
        core.register_component("data_loader", _service_model_loader())
        return boto3.Session(
            botocore_session=core, region_name=region, profile_name=location.profile
        )


@contextlib.contextmanager
def _translate_settings_errors(place: AwsLocation) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        yield
    except ValueError as error:  # what botocore raises for a malformed endpoint, and a Region
        raise CloudRefused(str(error), fix=ENDPOINT_URL_FIX) from error
    except ProfileNotFound as error:
        raise _no_such_profile(place) from error
    except BotoCoreError as error:
        fix = "set AWS_REGION and AWS_PROFILE, or `aws configure`."
        raise CloudRefused(str(error), fix=fix) from error


def is_endpoint_url(url: str) -> bool:
    """Return whether a URL is the address of a web server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return False


def check_endpoint_url(url: str | None) -> None:
    """Raise AwsRefused for an endpoint that is no address of a web server."""
    if url and not is_endpoint_url(url):
        raise CloudRefused(f"{url[:200]!r} is no address of an endpoint", fix=ENDPOINT_URL_FIX)


def check_profile(location: AwsLocation) -> None:
    """Raise NoSuchProfile where the profile, named or by AWS_PROFILE, is not configured."""
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    try:
        botocore.session.Session(profile=location.profile).get_scoped_config()
    except ProfileNotFound as error:
        raise _no_such_profile(location) from error


def _no_such_profile(place: AwsLocation) -> NoSuchProfile:
    import botocore.session

    session = botocore.session.Session(profile=place.profile)
    name, known = str(session.profile)[:100], ", ".join(session.available_profiles[:10])
    fix = f"take one of {known}, or" if known else "leave it out, or"
    return NoSuchProfile(
        f"the AWS configuration has no profile {name!r}",
        fix=f"{fix} `aws configure --profile {name}`.",
    )


@functools.cache
def _service_model_loader() -> Any:
    """Botocore's service models: read once, although each client has a session of its own.

    A session keeps its credentials; so that a new login counts, none is kept here.
    """
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))


class Aws:
    """The services at one place. A call is tried again while that may help."""

    def __init__(self, location: AwsLocation) -> None:
        self.location = location
        self._clients: dict[str, Any] = {}
        self._is_down = False

    def client(self, service: str) -> Any:
        """The client of a service, made once. It tries each request once: `call` retries."""
        if service not in self._clients:
            self._clients[service] = create_client(service, self.location, attempts=1)
        return self._clients[service]

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """One operation, by boto3's name. Raises AwsRefused and AwsUnreachable, beginning `what`.

        Only calls that may be made twice belong here: those that read, and those with a token.
        Where AWS does not answer, further calls are tried once, until one succeeds.
        """
        method: Callable[..., Mapping[str, Any]] = getattr(self.client(service), operation)

        def once() -> Mapping[str, Any]:
            return call_and_parse(method, parameters)

        with self.translate_errors(what):
            try:
                answer: Mapping[str, Any] = once() if self._is_down else retry(once)
            except Exception as error:
                self._is_down = self._is_down or error_kind(error) in TRY_ONCE_KINDS
                raise
        self._is_down = False
        return answer

    def call_without_retry(
        self, what: str, service: str, operation: str, **parameters: Any
    ) -> Mapping[str, Any]:
        """As `call`, tried a single time: for what is good to know and can be done without."""
        with self.translate_errors(what):
            answer: Mapping[str, Any] = getattr(self.client(service), operation)(**parameters)
        return answer

    def paginate(
        self, what: str, service: str, operation: str, key: str, **parameters: Any
    ) -> Iterator[Any]:
        """The items of a list, from all of its pages."""
        token: dict[str, str] = {}
        seen: set[str] = set()
        while True:
            answer = self.call(what, service, operation, **parameters, **token)
            yield from answer.get(key, ())
            following = answer.get("nextToken")
            if not following:
                return
            if following in seen:
                message = f"{what}: the list gives the same page again and again"
                raise CloudUnreachable(message, fix="check the network and the proxy; try again.")
            seen.add(following)
            token = {"nextToken": following}

    @contextlib.contextmanager
    def translate_errors(self, what: str) -> Iterator[None]:
        """As `aws_errors`; expired credentials are forgotten, so that a new login counts."""
        try:
            with translate_aws_errors(what, self.location.profile):
                yield
        except CredentialsExpired:
            self._clients.clear()
            raise


def retry(method: Callable[[], Any]) -> Any:
    """What `method` gives; tried again, with growing and random waits, where that may help."""
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

    def too_late(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        hopeless = error is not None and error_kind(error) in TRY_ONCE_KINDS
        longest = min(DEADLINE_S, OFFLINE_S) if hopeless else DEADLINE_S
        return (state.seconds_since_start or 0.0) >= longest

    retrying = Retrying(
        retry=retry_if_exception(_is_retryable),
        stop=too_late,
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(method)


def _is_retryable(error: BaseException) -> bool:
    kind = error_kind(error)
    return _is_transient(error) if kind == "answer" else kind in (*TRY_ONCE_KINDS, "unreachable")


def _is_transient(error: Any) -> bool:
    """Whether AWS's answer says that another try may do."""
    return _error_code(error) in RETRYABLE_CODES or _http_status(error) in RETRYABLE_STATUSES


def _error_code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _http_status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def translate_aws_errors(what: str, profile: str | None = None) -> Iterator[None]:
    """Turn what boto3 raises within into AwsRefused or AwsUnreachable, which begin with `what`."""
    try:
        yield
    except Exception as error:
        told = _translate(what, error, profile)
        if told is None:
            raise
        raise told from error


def _translate(
    what: str, error: Exception, profile: str | None
) -> CloudRefused | CloudUnreachable | None:
    """Return an exception of botocore's as ours; None for anybody else's."""
    kind, message = error_kind(error), f"{what}: {error}"
    if kind == "answer":
        return _service_error(what, error, profile)
    if kind in TRY_ONCE_KINDS:
        fix = "check the network and the proxy (HTTPS_PROXY, AWS_CA_BUNDLE); try again."
        return CloudUnreachable(message, fix=fix)
    if kind == "unreachable":
        return CloudUnreachable(message, fix="check the network; try again.")
    if kind == "no-credentials":
        return _no_credentials_error(what)
    if kind == "login":
        return _expired_credentials_error(message, profile)
    return None if kind is None else CloudRefused(message, fix="check the AWS settings.")


def _no_credentials_error(what: str) -> CloudRefused:
    fix = "`aws configure`, or set AWS_PROFILE."
    if BEARER_TOKEN in os.environ:
        fix += f" {BEARER_TOKEN} is not used: it signs Bedrock alone, not S3, IAM and STS."
    return CloudRefused(f"{what}: there are no AWS credentials", fix=fix)


def _service_error(what: str, error: Any, profile: str | None) -> CloudRefused | CloudUnreachable:
    code = _error_code(error)
    message = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if (
        code in EXPIRED_CREDENTIALS_CODES | INVALID_SIGNATURE_CODES | CLOCK_SKEW_CODES
        and (skew := _clock_skew_seconds(error)) is not None
    ):
        return _clock_skew_error(message, skew)
    if code in CLOCK_SKEW_CODES:
        return _clock_skew_error(message, None)
    if code in EXPIRED_CREDENTIALS_CODES:
        return _expired_credentials_error(message, profile)
    if code in INVALID_SIGNATURE_CODES:
        fix = "check the access key and its secret: `aws configure list` shows where they are from."
        return PermissionDenied(message, fix=fix)
    if _is_transient(error):
        return CloudUnreachable(message, fix="try again in a while.")
    if code in QUOTA_CODES and ZERO_QUOTA in message:
        return CloudRefused(message, fix="ask AWS (Service Quotas) for that type of machine.")
    if code in QUOTA_CODES:
        return QuotaExceeded(message, fix="wait for a running job, or ask AWS to raise the quota.")
    if code in ACCESS_DENIED_CODES:
        return PermissionDenied(message, fix=f"ask for the permission {_action(error)}.")
    if code in NOT_FOUND_CODES:
        return ResourceNotFound(message, fix="check the name and the Region.")
    if code in CONFLICT_CODES or (code == "ValidationException" and NAME_IN_USE.search(message)):
        return ResourceConflict(message, fix="look at what has that name, or take another one.")
    return CloudRefused(message, fix="check the name, and what you are allowed to do.")


def _action(error: Any) -> str:
    return f"for {error.operation_name}"


def _clock_skew_seconds(error: Any) -> float | None:
    """Return how far this machine's clock is ahead of AWS's; None where they agree, or no one says.

    A wrong clock is refused in the words of expired credentials or of a wrong secret: the time that
    AWS's answer bears tells the difference.
    """
    from email.utils import parsedate_to_datetime

    date = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        skew = time.time() - parsedate_to_datetime(str(date)).timestamp()
    except (TypeError, ValueError):
        return None
    return skew if abs(skew) > MAX_CLOCK_SKEW_S else None


def _clock_skew_error(message: str, skew: float | None) -> ClockSkewed:
    how = "wrong"
    if skew is not None:
        how = f"{abs(skew) / 60:.0f} minutes {'ahead of' if skew > 0 else 'behind'} AWS's"
    fix = "set the clock (`sudo timedatectl set-ntp true`, or the system's settings); try again."
    return ClockSkewed(f"{message} (this machine's clock is {how})", fix=fix)


def _expired_credentials_error(message: str, profile: str | None) -> CredentialsExpired:
    profile = profile or os.environ.get("AWS_PROFILE")
    named = f" --profile {profile}" if profile else ""
    fix = f"log in again: `aws sso login{named}` (or renew the keys)."
    return CredentialsExpired(message, fix=fix)
