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

from cloudft.aws.exceptions import (
    kind_of,
    refuse_foreign_answers,
    refuse_incomplete_items,
    whole_answer,
)
from cloudft.errors import (
    AwsConflict,
    AwsDenied,
    AwsNotFound,
    AwsQuota,
    AwsRefused,
    AwsUnreachable,
    ClockSkewed,
    CredentialsExpired,
    NoSuchProfile,
)

BUSY = {
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
EXPIRED = {
    *("ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired", "UnauthorizedException"),
    "RequestExpired",
}
UNSIGNED = {
    *("AuthFailure", "IncompleteSignature", "InvalidAccessKeyId", "InvalidClientTokenId"),
    *("InvalidSignatureException", "SignatureDoesNotMatch", "UnrecognizedClientException"),
}
"""The keys, or the signature that they made, are not accepted: no permission would help."""
DENIED = {
    *("403", "AccessDenied", "AccessDeniedException", "AuthorizationError"),
    "UnauthorizedOperation",
}
SCHEMES = "sigv4"
"""How requests are signed: as the identity of profile or environment, on every service.

With AWS_BEARER_TOKEN_BEDROCK in the environment botocore would sign Bedrock's requests with that
key and all others with the profile's: two identities, perhaps two accounts. This setting of the
client wins over the variable; AWS_AUTH_SCHEME_PREFERENCE does not (botocore 1.44.5).
"""
JUDGED = ("bedrock", "sagemaker")
"""Services whose lists are held against their models."""
ADDRESS = "correct --endpoint-url, endpoint_url or AWS_ENDPOINT_URL, or the Region."
BEARER_TOKEN = "AWS_BEARER_TOKEN_BEDROCK"
SKEWED = {"RequestTimeTooSkewed", "RequestInTheFuture"}
SKEW_S = 240.0
"""Services refuse requests that are dated 5 minutes wrong (S3: 15); one minute is for their way."""
MISSING = {"404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFoundException"} | {
    "ResourceNotFoundException",
    "ResourceNotFound",
    "ExecutionDoesNotExist",
    "StateMachineDoesNotExist",
}
TAKEN = {"ConflictException", "ResourceInUseException", "ResourceInUse", "ExecutionAlreadyExists"}
"""Bedrock's, moto's for it, SageMaker's and Step Functions'."""
NAME_TAKEN = re.compile(r"\bname\b.*\b(in use|already exists)\b", re.I)
"""Bedrock answers a taken name with a ValidationException: "The provided job name is
currently in use." (Airflow's Bedrock operator; aws/sagemaker-python-sdk, pull request 6076).
Its service model lists a ConflictException for that, so both are taken."""
FULL = {"ServiceQuotaExceededException", "ResourceLimitExceeded"}
NONE_ALLOWED = "is 0 Instances"
"""In SageMaker's words for a type of machine that the account may not use at all."""
BUSY_STATUSES = {408, 429, *range(500, 600)} - {501, 505}
"""A service that does not know an operation (501) will not learn it."""
DEADLINE_S = 60.0
"""How long one call is tried again."""
OFFLINE_S = 10.0
"""The same while no connection comes about, or something else answers in AWS's place: that seldom
ends by itself, and a person waits."""
HOPELESS = ("offline", "foreign")
"""Kinds of errors after which further calls are tried once, until one succeeds."""


@dataclass(frozen=True)
class Place:
    """Where AWS is: each part as the AWS CLI finds it when it is None."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


def client(service: str, place: Place | None = None, *, attempts: int = 5) -> Any:
    """A boto3 client with the AWS CLI's order of profile and Region; AWS_REGION counts too.

    A service's own address (AWS_ENDPOINT_URL_S3) stands above the one for all services. Raises
    AwsRefused for a profile that there is not, or when no Region is known.
    """
    from botocore.config import Config

    place = place or Place()
    check_address(place.endpoint_url or os.environ.get("AWS_ENDPOINT_URL"))
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        user_agent_extra="cloudft",
        auth_scheme_preference=SCHEMES,
    )
    own = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}" in os.environ
    with _settings_errors(place):
        made = session(place).client(
            service, config=config, endpoint_url=None if own else place.endpoint_url
        )
    made.meta.events.register("before-parse", refuse_foreign_answers)
    if service in JUDGED:
        made.meta.events.register("after-call", refuse_incomplete_items)
    return made


def session(place: Place) -> Any:
    """Return a boto3 session at that place. Raises AwsRefused for a profile that there is not."""
    import boto3
    import botocore.session

    region = place.region or os.environ.get("AWS_REGION") or None
    with _settings_errors(place):
        core = botocore.session.get_session()
        core.register_component("data_loader", _models())
        return boto3.Session(botocore_session=core, region_name=region, profile_name=place.profile)


@contextlib.contextmanager
def _settings_errors(place: Place) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        yield
    except ValueError as error:  # what botocore raises for a malformed endpoint, and a Region
        raise AwsRefused(str(error), fix=ADDRESS) from error
    except ProfileNotFound as error:
        raise _no_such_profile(place) from error
    except BotoCoreError as error:
        fix = "set AWS_REGION and AWS_PROFILE, or `aws configure`."
        raise AwsRefused(str(error), fix=fix) from error


def is_address(url: str) -> bool:
    """Return whether a URL is the address of a web server."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port beyond 65535, half an IPv6 address
        return False


def check_address(url: str | None) -> None:
    """Raise AwsRefused for an endpoint that is no address of a web server."""
    if url and not is_address(url):
        raise AwsRefused(f"{url[:200]!r} is no address of an endpoint", fix=ADDRESS)


def check_profile(place: Place) -> None:
    """Raise NoSuchProfile where the profile, named or by AWS_PROFILE, is not configured."""
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    try:
        botocore.session.Session(profile=place.profile).get_scoped_config()
    except ProfileNotFound as error:
        raise _no_such_profile(place) from error


def _no_such_profile(place: Place) -> NoSuchProfile:
    import botocore.session

    session = botocore.session.Session(profile=place.profile)
    name, known = str(session.profile)[:100], ", ".join(session.available_profiles[:10])
    fix = f"take one of {known}, or" if known else "leave it out, or"
    return NoSuchProfile(
        f"the AWS configuration has no profile {name!r}",
        fix=f"{fix} `aws configure --profile {name}`.",
    )


@functools.cache
def _models() -> Any:
    """Botocore's service models: read once, although each client has a session of its own.

    A session keeps its credentials; so that a new login counts, none is kept here.
    """
    from botocore.loaders import create_loader

    return create_loader(os.environ.get("AWS_DATA_PATH"))


class Aws:
    """The services at one place. A call is tried again while that may help."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._clients: dict[str, Any] = {}
        self._is_down = False

    def client(self, service: str) -> Any:
        """The client of a service, made once. It tries each request once: `call` retries."""
        if service not in self._clients:
            self._clients[service] = client(service, self.place, attempts=1)
        return self._clients[service]

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """One operation, by boto3's name. Raises AwsRefused and AwsUnreachable, beginning `what`.

        Only calls that may be made twice belong here: those that read, and those with a token.
        Where AWS does not answer, further calls are tried once, until one succeeds.
        """
        method: Callable[..., Mapping[str, Any]] = getattr(self.client(service), operation)

        def once() -> Mapping[str, Any]:
            return whole_answer(method, parameters)

        with self.errors(what):
            try:
                answer: Mapping[str, Any] = once() if self._is_down else again(once)
            except Exception as error:
                self._is_down = self._is_down or kind_of(error) in HOPELESS
                raise
        self._is_down = False
        return answer

    def once(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """As `call`, tried a single time: for what is good to know and can be done without."""
        with self.errors(what):
            answer: Mapping[str, Any] = getattr(self.client(service), operation)(**parameters)
        return answer

    def pages(
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
                raise AwsUnreachable(message, fix="check the network and the proxy; try again.")
            seen.add(following)
            token = {"nextToken": following}

    @contextlib.contextmanager
    def errors(self, what: str) -> Iterator[None]:
        """As `aws_errors`; expired credentials are forgotten, so that a new login counts."""
        try:
            with aws_errors(what, self.place.profile):
                yield
        except CredentialsExpired:
            self._clients.clear()
            raise


def again(method: Callable[[], Any]) -> Any:
    """What `method` gives; tried again, with growing and random waits, where that may help."""
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

    def too_late(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        hopeless = error is not None and kind_of(error) in HOPELESS
        longest = min(DEADLINE_S, OFFLINE_S) if hopeless else DEADLINE_S
        return (state.seconds_since_start or 0.0) >= longest

    retrying = Retrying(
        retry=retry_if_exception(_worth_another_try),
        stop=too_late,
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(method)


def _worth_another_try(error: BaseException) -> bool:
    kind = kind_of(error)
    return _is_busy(error) if kind == "answer" else kind in (*HOPELESS, "unreachable")


def _is_busy(error: Any) -> bool:
    """Whether AWS's answer says that another try may do."""
    return _code(error) in BUSY or _status(error) in BUSY_STATUSES


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def aws_errors(what: str, profile: str | None = None) -> Iterator[None]:
    """Turn what boto3 raises within into AwsRefused or AwsUnreachable, which begin with `what`."""
    try:
        yield
    except Exception as error:
        told = _translated(what, error, profile)
        if told is None:
            raise
        raise told from error


def _translated(
    what: str, error: Exception, profile: str | None
) -> AwsRefused | AwsUnreachable | None:
    """Return an exception of botocore's as ours; None for anybody else's."""
    kind, message = kind_of(error), f"{what}: {error}"
    if kind == "answer":
        return _refusal(what, error, profile)
    if kind in HOPELESS:
        fix = "check the network and the proxy (HTTPS_PROXY, AWS_CA_BUNDLE); try again."
        return AwsUnreachable(message, fix=fix)
    if kind == "unreachable":
        return AwsUnreachable(message, fix="check the network; try again.")
    if kind == "no-credentials":
        return _no_credentials(what)
    if kind == "login":
        return _expired(message, profile)
    return None if kind is None else AwsRefused(message, fix="check the AWS settings.")


def _no_credentials(what: str) -> AwsRefused:
    fix = "`aws configure`, or set AWS_PROFILE."
    if BEARER_TOKEN in os.environ:
        fix += f" {BEARER_TOKEN} is not used: it signs Bedrock alone, not S3, IAM and STS."
    return AwsRefused(f"{what}: there are no AWS credentials", fix=fix)


def _refusal(what: str, error: Any, profile: str | None) -> AwsRefused | AwsUnreachable:
    code = _code(error)
    message = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if code in EXPIRED | UNSIGNED | SKEWED and (skew := _skew_seconds(error)) is not None:
        return _skewed(message, skew)
    if code in SKEWED:
        return _skewed(message, None)
    if code in EXPIRED:
        return _expired(message, profile)
    if code in UNSIGNED:
        fix = "check the access key and its secret: `aws configure list` shows where they are from."
        return AwsDenied(message, fix=fix)
    if _is_busy(error):
        return AwsUnreachable(message, fix="try again in a while.")
    if code in FULL and NONE_ALLOWED in message:
        return AwsRefused(message, fix="ask AWS (Service Quotas) for that type of machine.")
    if code in FULL:
        return AwsQuota(message, fix="wait for a running job, or ask AWS to raise the quota.")
    if code in DENIED:
        return AwsDenied(message, fix=f"ask for the permission {_action(error)}.")
    if code in MISSING:
        return AwsNotFound(message, fix="check the name and the Region.")
    if code in TAKEN or (code == "ValidationException" and NAME_TAKEN.search(message)):
        return AwsConflict(message, fix="look at what has that name, or take another one.")
    return AwsRefused(message, fix="check the name, and what you are allowed to do.")


def _action(error: Any) -> str:
    return f"for {error.operation_name}"


def _skew_seconds(error: Any) -> float | None:
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
    return skew if abs(skew) > SKEW_S else None


def _skewed(message: str, skew: float | None) -> ClockSkewed:
    how = "wrong"
    if skew is not None:
        how = f"{abs(skew) / 60:.0f} minutes {'ahead of' if skew > 0 else 'behind'} AWS's"
    fix = "set the clock (`sudo timedatectl set-ntp true`, or the system's settings); try again."
    return ClockSkewed(f"{message} (this machine's clock is {how})", fix=fix)


def _expired(message: str, profile: str | None) -> CredentialsExpired:
    profile = profile or os.environ.get("AWS_PROFILE")
    named = f" --profile {profile}" if profile else ""
    fix = f"log in again: `aws sso login{named}` (or renew the keys)."
    return CredentialsExpired(message, fix=fix)
