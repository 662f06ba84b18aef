"""AWS clients, made in one place: profile, Region, endpoint; retries; AWS's errors in our words."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.errors import (
    AwsConflict,
    AwsDenied,
    AwsNotFound,
    AwsQuota,
    AwsRefused,
    AwsUnreachable,
    CredentialsExpired,
    NoSuchProfile,
)

BUSY = {
    "InternalError",
    "InternalServerException",
    "ModelNotReadyException",
    "RequestTimeout",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "Throttling",
    "ThrottlingException",
    "TooManyRequestsException",
}
"""Codes that are worth another try later."""
EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired", "TokenRefreshRequired"}
DENIED = {
    "403",
    "AccessDenied",
    "AccessDeniedException",
    "AuthorizationError",
    "UnauthorizedOperation",
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
}
MISSING = {"404", "NoSuchBucket", "NoSuchEntity", "NoSuchKey", "NotFoundException"} | {
    "ResourceNotFoundException",
    "ResourceNotFound",
    "ExecutionDoesNotExist",
    "StateMachineDoesNotExist",
}
TAKEN = {"ConflictException", "ResourceInUseException", "ResourceInUse", "ExecutionAlreadyExists"}
"""Bedrock's, moto's for it, SageMaker's and Step Functions'."""
FULL = {"ServiceQuotaExceededException", "ResourceLimitExceeded"}
NONE_ALLOWED = "is 0 Instances"
"""In SageMaker's words for a type of machine that the account may not use at all."""
RETRIED = {500, 502, 503, 504}
DEADLINE_S = 60.0
"""How long one call is tried again."""


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
    import boto3
    import botocore.session
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    place = place or Place()
    config = Config(
        retries={"mode": "standard", "total_max_attempts": attempts},
        connect_timeout=5,
        read_timeout=60,
        max_pool_connections=16,
        user_agent_extra="cloudft",
    )
    region = place.region or os.environ.get("AWS_REGION") or None
    own = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}" in os.environ
    try:
        core = botocore.session.get_session()
        core.register_component("data_loader", _models())
        session = boto3.Session(
            botocore_session=core, region_name=region, profile_name=place.profile
        )
        return session.client(
            service, config=config, endpoint_url=None if own else place.endpoint_url
        )
    except ProfileNotFound as error:
        raise _no_such_profile(place) from error
    except BotoCoreError as error:
        fix = "set AWS_REGION and AWS_PROFILE, or `aws configure`."
        raise AwsRefused(str(error), fix=fix) from error
    except ValueError as error:  # botocore's, for an endpoint that is no address
        fix = "correct --endpoint-url, endpoint_url or AWS_ENDPOINT_URL: http://127.0.0.1:4566."
        raise AwsRefused(str(error), fix=fix) from error


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

    def client(self, service: str) -> Any:
        """The client of a service, made once. It tries each request once: `call` retries."""
        if service not in self._clients:
            self._clients[service] = client(service, self.place, attempts=1)
        return self._clients[service]

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        """One operation, by boto3's name. Raises AwsRefused and AwsUnreachable, beginning `what`.

        Only calls that may be made twice belong here: those that read, and those with a token.
        """
        method: Callable[..., Mapping[str, Any]] = getattr(self.client(service), operation)
        with self.errors(what):
            answer: Mapping[str, Any] = again(lambda: method(**parameters))
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
        while True:
            answer = self.call(what, service, operation, **parameters, **token)
            yield from answer.get(key, ())
            if not answer.get("nextToken"):
                return
            token = {"nextToken": answer["nextToken"]}

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
    from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random_exponential

    retrying = Retrying(
        retry=retry_if_exception(_worth_another_try),
        stop=stop_after_delay(DEADLINE_S),
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(method)


def _worth_another_try(error: BaseException) -> bool:
    from botocore.exceptions import ClientError, HTTPClientError

    if isinstance(error, ClientError):
        return _code(error) in BUSY or _status(error) in RETRIED
    return isinstance(error, HTTPClientError)


def _code(error: Any) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


@contextlib.contextmanager
def aws_errors(what: str, profile: str | None = None) -> Iterator[None]:
    """Turn what boto3 raises within into AwsRefused or AwsUnreachable, which begin with `what`."""
    from botocore import exceptions as aws

    try:
        yield
    except aws.ClientError as error:
        raise _refusal(what, error, profile) from error
    except (aws.NoCredentialsError, aws.PartialCredentialsError) as error:
        raise AwsRefused(
            f"{what}: there are no AWS credentials", fix="`aws configure`, or set AWS_PROFILE."
        ) from error
    except (
        aws.UnauthorizedSSOTokenError,
        aws.SSOTokenLoadError,
        aws.TokenRetrievalError,
        aws.CredentialRetrievalError,
    ) as error:
        raise _expired(f"{what}: {error}", profile) from error
    except aws.HTTPClientError as error:
        raise AwsUnreachable(f"{what}: {error}", fix="check the network; try again.") from error
    except aws.BotoCoreError as error:
        raise AwsRefused(f"{what}: {error}", fix="check the AWS settings.") from error


def _refusal(what: str, error: Any, profile: str | None) -> AwsRefused | AwsUnreachable:
    code = _code(error)
    message = f"{what}: {code}: {error.response.get('Error', {}).get('Message', '')}"
    if code in EXPIRED:
        return _expired(message, profile)
    if code in BUSY or _status(error) in RETRIED:
        return AwsUnreachable(message, fix="try again in a while.")
    if code in FULL and NONE_ALLOWED in message:
        return AwsRefused(message, fix="ask AWS (Service Quotas) for that type of machine.")
    if code in FULL:
        return AwsQuota(message, fix="wait for a running job, or ask AWS to raise the quota.")
    if code in DENIED:
        return AwsDenied(message, fix=f"ask for the permission {_action(error)}.")
    if code in MISSING:
        return AwsNotFound(message, fix="check the name and the Region.")
    if code in TAKEN:
        return AwsConflict(message, fix="look at what has that name, or take another one.")
    return AwsRefused(message, fix="check the name, and what you are allowed to do.")


def _action(error: Any) -> str:
    return f"for {error.operation_name}"


def _expired(message: str, profile: str | None) -> CredentialsExpired:
    named = f" --profile {profile}" if profile else ""
    fix = f"log in again: `aws sso login{named}` (or renew the keys)."
    return CredentialsExpired(message, fix=fix)
