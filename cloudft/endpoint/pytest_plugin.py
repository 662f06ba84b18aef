"""Pytest plugin with the fixture `bedrock_endpoint`: one endpoint process for the whole session.

    def test_mine(bedrock_endpoint):
        bedrock = bedrock_endpoint.client("bedrock")

Its options come from the ini value `bedrock_endpoint_options`, written as on the command line; the
default is `--clock fast`. While a test uses the fixture, its AWS_* variables point to the endpoint.
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
    """The token of the status page and the administration routes."""

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables by which any AWS SDK and the AWS CLI reach it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "endpoint",
            "AWS_SECRET_ACCESS_KEY": "endpoint",
        }

    def client(self, service: str) -> Any:
        """Return a new boto3 client that calls it."""
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

    def fault(self, *faults: Mapping[str, str | float]) -> None:
        """Replace the faults to inject; cloudft/endpoint/fault_injection.py describes them."""
        body = json.dumps(faults).encode()
        headers = {"Authorization": f"Bearer {self.token}"}
        request = urllib.request.Request(f"{self.url}/_cloudft/faults", body, headers)
        with urllib.request.urlopen(request):
            pass


def pytest_addoption(parser: pytest.Parser) -> None:
    """Register the ini value."""
    description = "options of `cloudft endpoint` for the fixture bedrock_endpoint"
    parser.addini(INI_OPTION, description, default="--clock fast")


@pytest.fixture(scope="session")
def bedrock_endpoint_process(pytestconfig: pytest.Config) -> Iterator[BedrockEndpoint]:
    """Start the session's endpoint, without a change to the environment of tests."""
    options = shlex.split(pytestconfig.getini(INI_OPTION))
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", *options]
    token = secrets.token_urlsafe(16)
    environ = os.environ | {"CLOUDFT_ENDPOINT_TOKEN": token}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        if not url:
            pytest.fail("cloudft endpoint did not start: see its message on standard error")
        try:
            yield BedrockEndpoint(url, token)
        finally:
            process.terminate()


@pytest.fixture
def bedrock_endpoint(
    bedrock_endpoint_process: BedrockEndpoint, monkeypatch: pytest.MonkeyPatch
) -> BedrockEndpoint:
    """Return the endpoint, with no faults, and point the AWS_* variables to it.

    A Bedrock API key is removed from the environment: botocore prefers it to the other credentials,
    and sends it only over HTTPS.
    """
    monkeypatch.delenv("AWS_BEARER_TOKEN_BEDROCK", raising=False)
    for name, value in bedrock_endpoint_process.environ.items():
        monkeypatch.setenv(name, value)
    bedrock_endpoint_process.fault()
    return bedrock_endpoint_process
