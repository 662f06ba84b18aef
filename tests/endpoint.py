"""An endpoint in a process of its own, and what a job needs there: a bucket and a role."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import forked_cli
from processes import wait_until

BUCKET = "training-bucket"
REGION = "us-east-1"
ACCOUNT = "000000000000"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/bedrock-job"
BEDROCK_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {
            "Effect": "Allow",
            "Principal": {"Service": "bedrock.amazonaws.com"},
            "Action": "sts:AssumeRole",
            "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
        }
    ],
}
SAGEMAKER_ROLE = f"arn:aws:iam::{ACCOUNT}:role/sagemaker-job"
SAGEMAKER_TRUST = json.loads(
    json.dumps(BEDROCK_TRUST).replace("bedrock.amazon", "sagemaker.amazon")
)
TOKEN = "token-of-the-tests"
"""For the page and the routes of administration of every endpoint that tests start."""
AWS_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEYID", "AWS_SECRET_ACCESS_KEY": "planted-secret-key"}


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        """What the command line needs to reach it."""
        return {**AWS_KEYS, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION}

    @property
    def bedrock_section(self) -> dict[str, Any]:
        """The job file's `bedrock` section."""
        return {"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"}

    def client(self, service: str) -> Any:
        """A boto3 client for it, made once: making one takes longer than most calls."""
        return _client(self.url, service)

    def object_keys(self) -> list[str]:
        """Every key in the bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def fault(self, *orders: Mapping[str, Any]) -> None:
        """Order failures; see cloudft/endpoint/fault_injection.py."""
        self._admin("faults", json.dumps(orders).encode())

    def calls(self, operation: str) -> list[dict[str, Any]]:
        """The parameters of every call of that operation so far."""
        told = json.loads(self._admin("calls"))
        return [call["parameters"] for call in told if call["operation"] == operation]

    def _admin(self, what: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/_cloudft/{what}", body)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request) as answer:
            content: bytes = answer.read()
        return content


def new_client(url: str, service: str) -> Any:
    """A boto3 client of that endpoint."""
    keys = {name.lower(): value for name, value in AWS_KEYS.items()}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


_client = functools.cache(new_client)


@contextlib.contextmanager
def running_endpoint(*arguments: str | Path) -> Iterator[Endpoint]:
    """An endpoint with an empty, closed bucket and a trusting role."""
    with tempfile.TemporaryDirectory(prefix="endpoint-") as folder:
        said = [Path(folder, name) for name in ("out", "err")]
        words = ["endpoint", "-q", "--until-pid", str(os.getpid()), *arguments]
        environ = os.environ | {"CLOUDFT_ENDPOINT_TOKEN": TOKEN}
        process = forked_cli.start_cli(words, env=environ, streams=[os.devnull, *said])
        try:
            wait_until(lambda: _line(said[0]) or not process.is_alive(), "the endpoint is up")
            assert process.is_alive(), said[1].read_text()
            endpoint = Endpoint(_line(said[0]))
            create_bucket_and_roles(endpoint)
            yield endpoint
        finally:
            process.terminate()
            process.join(30)


def _line(path: Path) -> str:
    """Its first line, once that is whole."""
    line, end, _ = path.read_text().partition("\n") if path.exists() else ("", "", "")
    return line if end else ""


def create_bucket_and_roles(endpoint: Endpoint) -> None:
    """A bucket that can't be made public, and the service role."""
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=BUCKET, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
    )
    iam = endpoint.client("iam")
    for name, trust in (("bedrock-job", BEDROCK_TRUST), ("sagemaker-job", SAGEMAKER_TRUST)):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
