"""Options that the endpoint is started with."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cloudft.web.request_guard import RequestGuard

LOOPBACK_HOSTS = ("127.0.0.1", "localhost", "::1")


def new_token() -> str:
    """Return a random token of 128 bits."""
    return secrets.token_urlsafe(16)


@dataclass(frozen=True)
class EndpointOptions:
    """Options of one endpoint; `cloudft endpoint --help` describes them."""

    port: int = 0
    host: str = "127.0.0.1"
    region: str = "us-east-1"
    other_regions: tuple[str, ...] = ()
    """More Regions of Bedrock, each with a state of its own."""
    state: Path | None = None
    """The folder of the state; if None, the state ends with the process."""
    stand_in: str = "smollm2-135m"
    """The open model that stands in for every model that `stand_ins` has not."""
    stand_ins: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, object] = field(default_factory=dict)
    """Fields of the job file that every trained job gets."""
    graders: Mapping[str, Path] = field(default_factory=dict)
    """ARN of a Lambda function -> the file with its handler."""
    fast: bool = False
    """Jobs are simulated: they train nothing and take `seconds`."""
    seconds: float = 0.0
    warm_up: bool = True
    """Load the stand-in at the start, so that the first answer does not wait for it."""
    max_concurrent_jobs: int = 2
    as_on_aws: bool = False
    """Models past their end of life are refused."""
    s3: str | None = None
    """The URL of the S3 that jobs use; moto's if None."""
    authorization: bool = False
    """Jobs may do what their role's policies allow, and nothing else."""
    secret_keys: Mapping[str, str] | None = None
    """Access key -> secret key. If None, any credentials are accepted."""
    until_pid: int | None = None
    """The endpoint ends when the process with this id does."""
    training_env: Path | None = None
    """The virtual environment that a SageMaker job's container holds; this one if None."""
    allowed_hosts: tuple[str, ...] = ()
    """Names that the header `Host` may have, beside `localhost`, IP addresses and `host`."""
    token: str = field(default_factory=new_token, repr=False)
    """The token of the status page and the administration routes."""

    @property
    def request_guard(self) -> RequestGuard:
        """Return the guard that every request has to pass."""
        own = {self.host} if self.host in LOOPBACK_HOSTS else {self.host, socket.gethostname()}
        names = frozenset(name.lower() for name in {*own, *self.allowed_hosts})
        return RequestGuard(
            names, "; to allow it, start the endpoint with --allow-host", self.token
        )
