"""A pytest fixture, `bedrock_endpoint`: an endpoint in a process of its own for the whole session.

    def test_mine(bedrock_endpoint):
        bedrock = bedrock_endpoint.client("bedrock")

Its options come from the ini value `bedrock_endpoint_options` (a line as on the command line);
without it the clock is fast. The tests' AWS_* variables point there while a test uses the fixture.
"""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

REGION = "us-east-1"
INI_OPTION = "bedrock_endpoint_options"


@dataclass(frozen=True)
class BedrockEndpoint:
    """A running endpoint."""

    url: str
    token: str = field(default="", repr=False)
    """For the page and the routes of administration."""

    @property
    def environ(self) -> dict[str, str]:
        """What any AWS SDK or the AWS CLI needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "endpoint",
            "AWS_SECRET_ACCESS_KEY": "endpoint",
        }

    def client(self, service: str) -> Any:
        """A boto3 client of it."""
        import boto3
        from botocore.config import Config

        return boto3.client(
            service,
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id="endpoint",
            aws_secret_access_key="endpoint",
            config=Config(auth_scheme_preference="sigv4"),
        )

    def fault(self, *orders: Mapping[str, Any]) -> None:
        """Order failures: see docs/endpoint.md. They stand above earlier orders."""
        body = json.dumps(orders).encode()
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}/_cloudft/faults", body, headers)
        with urllib.request.urlopen(request):
            pass


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the ini value."""
    what = "options of `cloudft endpoint` for the fixture bedrock_endpoint"
    parser.addini(INI_OPTION, what, default="--clock fast")


@pytest.fixture(scope="session")
def bedrock_endpoint_process(pytestconfig: pytest.Config) -> Iterator[BedrockEndpoint]:
    """The endpoint of the session; its environment is left as it is."""
    options = shlex.split(pytestconfig.getini(INI_OPTION))
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", *options]
    token = secrets.token_urlsafe(16)
    environ = os.environ | {"CLOUDFT_ENDPOINT_TOKEN": token}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            pytest.fail("cloudft endpoint did not start; its message is on standard error")
        try:
            yield BedrockEndpoint(url, token)
        finally:
            process.terminate()


@pytest.fixture
def bedrock_endpoint(
    bedrock_endpoint_process: BedrockEndpoint, monkeypatch: pytest.MonkeyPatch
) -> BedrockEndpoint:
    """The endpoint, the AWS_* variables pointing to it. No fault stands at the beginning.

    A Bedrock API key of the environment is not used: botocore sends it over HTTPS alone.
    """
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    for name, value in bedrock_endpoint_process.environ.items():
        monkeypatch.setenv(name, value)
    bedrock_endpoint_process.fault()
    return bedrock_endpoint_process
