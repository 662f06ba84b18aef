"""Create boto3 clients of the services beside Bedrock: moto's, or the S3 that `--s3` names."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from cloudft.endpoint.options import EndpointOptions

if TYPE_CHECKING:
    from botocore.client import BaseClient


ClientFactory: TypeAlias = "Callable[[str], BaseClient]"
"""Name of a service -> its boto3 client."""


class ServiceClients:
    """Clients that call this endpoint, which is at `url`. Safe for several threads."""

    def __init__(self, options: EndpointOptions, url: str) -> None:
        self._options = options
        self._url = url
        self._lock = threading.Lock()
        self._with_retries: dict[str, BaseClient] = {}
        self._without_retries: dict[str, BaseClient] = {}

    def __call__(self, service: str) -> BaseClient:
        """Return the shared client of a service."""
        if service not in self._with_retries:
            self._with_retries[service] = self.create(service)
        return self._with_retries[service]

    def without_retries(self, service: str) -> BaseClient:
        """Return the shared client without retries: a state machine has retries of its own."""
        if service not in self._without_retries:
            self._without_retries[service] = self.create(service, {"total_max_attempts": 1})
        return self._without_retries[service]

    def create(self, service: str, retries: Mapping[str, int] | None = None) -> BaseClient:
        """Return a new client of a service. `retries` is botocore's configuration of them."""
        import boto3
        from botocore.config import Config

        other_s3 = self._options.s3 if service == "s3" else None
        key = os.environ.get("AWS_ACCESS_KEY_ID", "endpoint")
        secret = os.environ.get("AWS_SECRET_ACCESS_KEY", "endpoint")
        if self._options.secret_keys and other_s3 is None:
            # This endpoint verifies its own clients, too.
            key, secret = next(iter(self._options.secret_keys.items()))
        # botocore prefers a Bedrock API key of the environment, and refuses to send it over HTTP.
        config = Config(retries=dict(retries) if retries else None, auth_scheme_preference="sigv4")
        with self._lock:  # boto3's default session is not thread-safe
            client: BaseClient = boto3.client(
                service,
                endpoint_url=other_s3 or self._url,
                region_name=self._options.region,
                aws_access_key_id=key,
                aws_secret_access_key=secret,
                config=config,
            )
            return client
