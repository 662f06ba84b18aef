"""A Bedrock job whose data lies on a real S3 server, which checks signatures and checksums."""

from __future__ import annotations

import contextlib
import json
import random
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from endpoint import AWS_KEYS, BUCKET, REGION, running_endpoint
from job_files import write_job_file
from processes import Cli, wait_until

WEED = Path(sys.executable).parent / "weed"
KEYWORDS = {name.lower(): value for name, value in AWS_KEYS.items()}


def free_port() -> int:
    """Return a free port whose neighbor 10,000 above is free too: the server takes both."""
    while True:
        port = random.randint(20_000, 40_000)
        with contextlib.suppress(OSError), socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", port))
            two.bind(("127.0.0.1", port + 10_000))
            return port


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield the URL of a SeaweedFS server with an empty bucket."""
    folder = tmp_path_factory.mktemp("weed")
    key = {
        "accessKey": AWS_KEYS["AWS_ACCESS_KEY_ID"],
        "secretKey": AWS_KEYS["AWS_SECRET_ACCESS_KEY"],
    }
    identity = {"name": "all", "credentials": [key], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = {name: free_port() for name in ("master", "volume", "filer", "s3")}
    command = [str(WEED), "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-volume.max=40"]
    command += ["-master.volumeSizeLimitMB=64"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    url = f"http://127.0.0.1:{ports['s3']}"
    client = boto3.client("s3", endpoint_url=url, region_name=REGION, **KEYWORDS)

    def made() -> bool:
        with contextlib.suppress(BotoCoreError, ClientError):
            client.create_bucket(Bucket=BUCKET)
            return True
        return False

    with (folder / "log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as p:
        try:
            wait_until(made, "the S3 server is up")
            yield url
        finally:
            p.kill()


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def test_a_job_whose_data_lies_on_a_real_s3(
    cli: Cli, s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = [{"prompt": f"{n} {'word ' * 900}", "completion": "yes"} for n in range(5000)]
    for name, secret in AWS_KEYS.items():  # the endpoint signs with them too
        monkeypatch.setenv(name, secret)
    with running_endpoint("--clock", "fast", "--s3", s3) as endpoint:
        for name, setting in {**endpoint.environ, "AWS_ENDPOINT_URL_S3": s3}.items():
            monkeypatch.setenv(name, setting)
        path = write_job_file(
            tmp_path / "job",
            Path("titan-text-express"),
            records=records,
            bedrock=endpoint.bedrock_section,
            hyperparameters={"batchSize": 1},
        )
        words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
        job = value(cli(*words, timeout=120))
        assert job["status"] == "Completed"
        client = boto3.client("s3", endpoint_url=s3, region_name=REGION, **KEYWORDS)
        file = job["manifest"]["files"]["train"]
        key = f"team/data/{file['sha256']}/train.jsonl"
        there = client.head_object(Bucket=BUCKET, Key=key)
        assert there["ContentLength"] == file["bytes"] > 16 * 2**20
        again = value(cli(*words[:-2], "--force-new", "--output", "json", timeout=120))
        assert again["id"] != job["id"] and again["status"] == "Completed"
        assert client.head_object(Bucket=BUCKET, Key=key)["LastModified"] == there["LastModified"]
        assert not client.list_multipart_uploads(Bucket=BUCKET).get("Uploads")
