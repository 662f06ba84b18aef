"""Start an endpoint in its own process, with what a job needs there: a bucket and roles."""

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
"""The token of the status page and the administration routes of every endpoint in tests."""
AWS_KEYS = {"AWS_ACCESS_KEY_ID": "AKIAPLANTEDKEYID", "AWS_SECRET_ACCESS_KEY": "planted-secret-key"}


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint."""

    url: str

    @property
    def environ(self) -> dict[str, str]:
        """Return the variables by which the command line reaches it."""
        return {**AWS_KEYS, "AWS_ENDPOINT_URL": self.url, "AWS_REGION": REGION}

    @property
    def bedrock_section(self) -> dict[str, Any]:
        """Return the `bedrock` section of a job file."""
        return {"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"}

    def client(self, service: str) -> Any:
        """Return the shared boto3 client: creating one takes longer than most calls."""
        return _client(self.url, service)

    def object_keys(self) -> list[str]:
        """Return every key in the bucket."""
        pages = self.client("s3").get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        return [item["Key"] for page in pages for item in page.get("Contents", ())]

    def fault(self, *faults: Mapping[str, Any]) -> None:
        """Replace the faults to inject; see cloudft/endpoint/fault_injection.py."""
        self._call_admin_route("faults", json.dumps(faults).encode())

    def calls(self, operation: str) -> list[dict[str, Any]]:
        """Return the parameters of every call of an operation so far."""
        calls = json.loads(self._call_admin_route("calls"))
        return [call["parameters"] for call in calls if call["operation"] == operation]

    def _call_admin_route(self, name: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(f"{self.url}/_cloudft/{name}", body)
        request.add_header("Authorization", f"Bearer {TOKEN}")
        with urllib.request.urlopen(request) as response:
            content: bytes = response.read()
        return content


def new_client(url: str, service: str) -> Any:
    """Return a new boto3 client of an endpoint."""
    keys = {name.lower(): value for name, value in AWS_KEYS.items()}
    return boto3.client(service, endpoint_url=url, region_name=REGION, **keys)


_client = functools.cache(new_client)


@contextlib.contextmanager
def running_endpoint(*arguments: str | Path) -> Iterator[Endpoint]:
    """Run an endpoint with an empty, private bucket, and roles that trust Bedrock and SageMaker.

    The roles may do everything. Without `--warm-up` no model is loaded before the first request.
    """
    with tempfile.TemporaryDirectory(prefix="endpoint-") as folder:
        output, errors = Path(folder, "out"), Path(folder, "err")
        own = ["-q", "--no-warm-up", "--until-pid", str(os.getpid())]
        command = ["endpoint", *own, *arguments]
        # Never the model cache of the person who runs the tests.
        cache = {"CLOUDFT_MODEL_CACHE": f"{folder}/models"}
        environ = cache | os.environ | {"CLOUDFT_ENDPOINT_TOKEN": TOKEN}
        process = forked_cli.start_cli(command, env=environ, streams=[os.devnull, output, errors])
        try:
            wait_until(lambda: _first_line(output) or not process.is_alive(), "the endpoint is up")
            assert process.is_alive(), errors.read_text()
            endpoint = Endpoint(_first_line(output))
            create_bucket_and_roles(endpoint)
            yield endpoint
        finally:
            process.terminate()
            process.join(30)


def _first_line(path: Path) -> str:
    """Return the first line of a file once it is complete; an empty string before."""
    line, end, _ = path.read_text().partition("\n") if path.exists() else ("", "", "")
    return line if end else ""


def create_bucket_and_roles(endpoint: Endpoint) -> None:
    """Create a bucket that can't be made public, and the roles of the two services."""
    s3 = endpoint.client("s3")
    s3.create_bucket(Bucket=BUCKET)
    blocked = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
    s3.put_public_access_block(
        Bucket=BUCKET, PublicAccessBlockConfiguration=dict.fromkeys(blocked, True)
    )
    iam = endpoint.client("iam")
    for name, trust in (("bedrock-job", BEDROCK_TRUST), ("sagemaker-job", SAGEMAKER_TRUST)):
        iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam.put_role_policy(
            RoleName=name,
            PolicyName="everything",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": everything}),
        )
