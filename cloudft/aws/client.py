"""AWS clients: profile, Region and endpoint as the AWS CLI finds them; retries; pagination."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from cloudft.aws.botocore_errors import Response as Response  # a part of this module's interface
from cloudft.aws.botocore_errors import (
    call_and_parse,
    error_kind,
    raise_on_foreign_response,
    raise_on_incomplete_items,
)
from cloudft.aws.error_translation import is_transient, translate_aws_errors
from cloudft.aws.openai_errors import rewrite_openai_error
from cloudft.aws.request_validation import service_model_loader
from cloudft.errors import CloudRefused, CloudUnreachable, CredentialsExpired, NoSuchProfile

if TYPE_CHECKING:
    import boto3
    from botocore.client import BaseClient
    from botocore.paginate import Paginator

AUTH_SCHEME_PREFERENCE = "sigv4"
"""Sign every request with the credentials of the profile or the environment, on every service.

With AWS_BEARER_TOKEN_BEDROCK in the environment botocore would sign Bedrock's requests with that
key and all others with the profile's: two identities, perhaps two accounts. This setting of the
client wins over the variable; AWS_AUTH_SCHEME_PREFERENCE does not (botocore 1.44.5).
"""
VALIDATED_SERVICES = ("bedrock", "bedrock-mantle", "sagemaker")
"""Services whose lists are checked against their service models."""
OPENAI_SERVICE = "bedrock-mantle"
"""Bedrock's OpenAI-compatible API: its service model is cloudft's own (aws/service_models)."""
ENDPOINT_URL_FIX = "correct --endpoint-url, endpoint_url or AWS_ENDPOINT_URL, or the Region."
DEADLINE_S = 60.0
"""How long one call is retried."""
OFFLINE_S = 10.0
"""How long it is retried while no connection is made, or something else than AWS answers: that
seldom ends by itself, and a person waits."""
TRY_ONCE_KINDS = ("offline", "foreign")
"""Kinds of errors after which further calls are not retried, until one succeeds."""
T = TypeVar("T")


@dataclass(frozen=True)
class AwsLocation:
    """Region, profile and endpoint of the calls; the AWS CLI's defaults where one is None."""

    region: str | None = None
    profile: str | None = None
    endpoint_url: str | None = None


def create_client(
    service: str, location: AwsLocation | None = None, *, attempts: int = 5
) -> BaseClient:
    """Return a boto3 client with the AWS CLI's order of profile and Region; AWS_REGION counts too.

    A service's own endpoint (AWS_ENDPOINT_URL_S3) wins over the one for all services. Raise
    CloudRefused for a profile that does not exist, or when no Region is known.
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
    # endpoint_url=None lets botocore read the service's own variable.
    has_own_endpoint = f"AWS_ENDPOINT_URL_{service.upper().replace('-', '_')}" in os.environ
    endpoint_url = None if has_own_endpoint else location.endpoint_url
    with _translate_settings_errors(location):
        client = create_session(location).client(service, config=config, endpoint_url=endpoint_url)
    client.meta.events.register("before-parse", raise_on_foreign_response)
    if service == OPENAI_SERVICE:
        client.meta.events.register("before-parse", rewrite_openai_error)
    if service in VALIDATED_SERVICES:
        client.meta.events.register("after-call", raise_on_incomplete_items)
    return client


def create_session(location: AwsLocation) -> boto3.Session:
    """Return a boto3 session. Raise CloudRefused for a profile that does not exist."""
    import boto3
    import botocore.session

    region = location.region or os.environ.get("AWS_REGION") or None
    with _translate_settings_errors(location):
        core = botocore.session.get_session()
        core.register_component("data_loader", service_model_loader())
        return boto3.Session(
            botocore_session=core, region_name=region, profile_name=location.profile
        )


@contextlib.contextmanager
def _translate_settings_errors(location: AwsLocation) -> Iterator[None]:
    from botocore.exceptions import BotoCoreError, ProfileNotFound

    try:
        yield
    except ValueError as error:  # botocore raises it for a malformed endpoint or Region
        raise CloudRefused(str(error), fix=ENDPOINT_URL_FIX) from error
    except ProfileNotFound as error:
        raise _no_such_profile(location) from error
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
    """Raise CloudRefused for an endpoint that is not the address of a web server."""
    if url and not is_endpoint_url(url):
        raise CloudRefused(f"{url[:200]!r} is not the address of an endpoint", fix=ENDPOINT_URL_FIX)


def check_profile(location: AwsLocation) -> None:
    """Raise NoSuchProfile where the profile, named or by AWS_PROFILE, is not configured."""
    import botocore.session
    from botocore.exceptions import ProfileNotFound

    try:
        botocore.session.Session(profile=location.profile).get_scoped_config()
    except ProfileNotFound as error:
        raise _no_such_profile(location) from error


def _no_such_profile(location: AwsLocation) -> NoSuchProfile:
    import botocore.session

    session = botocore.session.Session(profile=location.profile)
    name, known = str(session.profile)[:100], ", ".join(session.available_profiles[:10])
    fix = f"use one of {known}, or" if known else "leave it out, or"
    return NoSuchProfile(
        f"the AWS configuration has no profile {name!r}",
        fix=f"{fix} `aws configure --profile {name}`.",
    )


class Aws:
    """The AWS services at one location. Calls are retried while that may help."""

    def __init__(self, location: AwsLocation) -> None:
        self.location = location
        self._clients: dict[str, BaseClient] = {}
        self._is_down = False

    @property
    def region(self) -> str | None:
        """Return the Region that is called: the location's, else that of the configuration."""
        region: str | None = self.location.region or create_session(self.location).region_name
        return region

    def client(self, service: str) -> BaseClient:
        """Return the service's client, created once. It does not retry: `call` does."""
        if service not in self._clients:
            self._clients[service] = create_client(service, self.location, attempts=1)
        return self._clients[service]

    def call(self, failure: str, service: str, operation: str, **parameters: object) -> Response:
        """Call an operation, by boto3's name of it, and retry what may pass.

        Use it only for calls that may be made twice: those that read, and those with a client
        token. Raise CloudRefused and CloudUnreachable with messages that begin with `failure`, such
        as "the models can't be listed". After a call that did not reach AWS, further calls are
        tried once each, until one succeeds.
        """
        method: Callable[..., Response] = getattr(self.client(service), operation)

        def call_once() -> Response:
            return call_and_parse(method, parameters)

        with self.translate_errors(failure, service):
            try:
                response = call_once() if self._is_down else retry(call_once)
            except Exception as error:
                self._is_down = self._is_down or error_kind(error) in TRY_ONCE_KINDS
                raise
        self._is_down = False
        return response

    def call_without_retry(
        self, failure: str, service: str, operation: str, **parameters: object
    ) -> Response:
        """Call an operation once, as `call` does: for what is useful but can be done without."""
        with self.translate_errors(failure, service):
            response: Response = getattr(self.client(service), operation)(**parameters)
        return response

    def paginate(
        self, failure: str, service: str, operation: str, key: str, **parameters: object
    ) -> Iterator[Any]:
        """Yield the items of a list, `key` of each of its pages; each page is a `call`.

        Raise CloudUnreachable for a list that returns a page token a second time.
        """
        yield from self._paginate(self.call, failure, service, operation, key, parameters)

    def paginate_without_retry(
        self, failure: str, service: str, operation: str, key: str, **parameters: object
    ) -> Iterator[Any]:
        """Yield the items of a list as `paginate` does; each page is a `call_without_retry`."""
        call = self.call_without_retry
        yield from self._paginate(call, failure, service, operation, key, parameters)

    def _paginate(
        self,
        call: Callable[..., Response],
        failure: str,
        service: str,
        operation: str,
        key: str,
        parameters: Mapping[str, object],
    ) -> Iterator[Any]:
        from botocore.exceptions import PaginationError

        seen: set[str] = set()

        def call_page(**page_parameters: object) -> Response:
            token = str({k: v for k, v in page_parameters.items() if k not in parameters})
            if token in seen:  # botocore itself notices only the same token twice in a row
                raise PaginationError(message=f"page {token} was returned before")
            seen.add(token)
            return call(failure, service, operation, **page_parameters)

        paginator = self._paginator(call_page, service, operation)
        try:
            for page in paginator.paginate(**parameters):
                yield from page.get(key, ())
        except PaginationError as error:
            message = f"{failure}: the list returns the same page again and again"
            fix = "check the network and the proxy; try again."
            raise CloudUnreachable(message, fix=fix) from error

    def _paginator(
        self, method: Callable[..., Response], service: str, operation: str
    ) -> Paginator:
        """Return botocore's paginator of an operation, which calls `method` for each page.

        The client's own paginator would call the client, without the retries of `call`.
        """
        from botocore.paginate import Paginator, PaginatorModel

        meta = self.client(service).meta
        name = meta.method_to_api_mapping[operation]
        rules = PaginatorModel(service_model_loader().load_service_model(service, "paginators-1"))
        return Paginator(
            method, rules.get_paginator(name), meta.service_model.operation_model(name)
        )

    @contextlib.contextmanager
    def translate_errors(self, failure: str, service: str | None = None) -> Iterator[None]:
        """Translate errors as `translate_aws_errors` does.

        Expired credentials drop the clients, so that a new login counts.
        """
        try:
            with translate_aws_errors(failure, self.location.profile, service):
                yield
        except CredentialsExpired:
            self._clients.clear()
            raise


def retry(method: Callable[[], T]) -> T:
    """Return what `method` returns; retry it with growing, random waits where that may help."""
    from tenacity import RetryCallState, Retrying, retry_if_exception, wait_random_exponential

    def is_too_late(state: RetryCallState) -> bool:
        error = state.outcome.exception() if state.outcome else None
        is_offline = error is not None and error_kind(error) in TRY_ONCE_KINDS
        deadline = min(DEADLINE_S, OFFLINE_S) if is_offline else DEADLINE_S
        return (state.seconds_since_start or 0.0) >= deadline

    retrying = Retrying(
        retry=retry_if_exception(_is_retryable),
        stop=is_too_late,
        wait=wait_random_exponential(multiplier=0.2, max=10),
        reraise=True,
    )
    return retrying(method)


def _is_retryable(error: BaseException) -> bool:
    kind = error_kind(error)
    return is_transient(error) if kind == "answer" else kind in (*TRY_ONCE_KINDS, "unreachable")
