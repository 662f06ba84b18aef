"""Data in S3: found, read as a stream, resumed after a broken connection. AWS is moto."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner
from moto import mock_aws
from processes import Cli

from cloudft.aws.s3 import ObjectStream, list_object_uris
from cloudft.cli.main import cloudft
from cloudft.data.checks.check import DataReport, check_data
from cloudft.data.staging.stage import stage_data
from cloudft.errors import CloudRefused
from cloudft.spec.model import DataSpec

PAIRS = b"".join(
    json.dumps({"prompt": f"p{i} " + "word " * 20, "completion": "c"}).encode() + b"\n"
    for i in range(20_000)
)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    with mock_aws():
        s3 = boto3.resource("s3", region_name="eu-central-1")
        where = {"LocationConstraint": "eu-central-1"}
        yield s3.create_bucket(Bucket="data", CreateBucketConfiguration=where)


def check_data_at(*uris: str) -> DataReport:
    data = DataSpec.model_validate({"train": list(uris)})
    return check_data(data, format="converse", base_dir=Path.cwd())


def test_one_object_a_folder_and_a_glob(bucket: Any) -> None:
    for key in ("a/1.jsonl", "a/2.jsonl", "a/b/3.jsonl", "ab/4.jsonl", "a/"):
        bucket.put_object(Key=key, Body=b"")
    assert list(list_object_uris("s3://data/a/1.jsonl")) == ["s3://data/a/1.jsonl"]
    folder = ["s3://data/a/1.jsonl", "s3://data/a/2.jsonl", "s3://data/a/b/3.jsonl"]
    assert list(list_object_uris("s3://data/a")) == list(list_object_uris("s3://data/a/")) == folder
    assert list(list_object_uris("s3://data/a*/[24].jsonl")) == [
        "s3://data/a/2.jsonl",
        "s3://data/ab/4.jsonl",
    ]
    assert list(list_object_uris("s3://data/nothing")) == []


def test_the_same_checks_and_the_same_staged_bytes(bucket: Any, tmp_path: Path) -> None:
    bucket.put_object(Key="in/train.jsonl", Body=PAIRS)
    (tmp_path / "train.jsonl").write_bytes(PAIRS)
    hashes = []
    for place in ("s3://data/in/train.jsonl", "train.jsonl"):
        staged = stage_data(
            DataSpec.model_validate({"train": place}),
            customization_type="FINE_TUNING",
            format="converse",
            seed=7,
            base_dir=tmp_path,
            root=tmp_path / "root",
        )
        hashes.append((staged.manifest.sha256, staged.manifest.sources[0].sha256))
        assert staged.manifest.sources[0].path == place
    assert hashes[0] == hashes[1]


def test_a_fault_has_its_object_and_line(bucket: Any) -> None:
    bucket.put_object(Key="bad.jsonl", Body=PAIRS + b'{"prompt": "a"}\n')
    bucket.put_object(Key="notes.docx", Body=b"x")
    found = check_data_at("s3://data/bad.jsonl", "s3://data/nothing.jsonl", "s3://data/notes.docx")
    assert [(f.code, f.file, f.line) for f in found.findings] == [
        ("FileNotFound", "s3://data/nothing.jsonl", None),
        ("UnsupportedFileType", "s3://data/notes.docx", None),
        ("WrongKeys", "s3://data/bad.jsonl", 20_001),
    ]


def test_the_data_commands_take_objects_too(bucket: Any) -> None:
    bucket.put_object(Key="a.jsonl", Body=PAIRS[:1000].rpartition(b"\n")[0])
    done = CliRunner().invoke(cloudft, ["data", "stats", "s3://data/a.jsonl", "-o", "json"])
    assert done.exception is None and json.loads(done.stdout)["data"]["records"] > 3


def test_no_bucket_is_refused_in_one_sentence(bucket: Any) -> None:
    with pytest.raises(CloudRefused, match=r"s3://other/a\.jsonl can't be listed: NoSuchBucket"):
        check_data_at("s3://other/a.jsonl")


def test_without_credentials_the_command_says_so_and_exits_with_4(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "cloudft.yaml"
    path.write_text("name: a\nbase_model: titan-text-lite\ndata: {train: 's3://data/a.jsonl'}\n")
    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "HOME": str(tmp_path)}
    done = cli("check", path, env=os.environ | nowhere)
    assert done.returncode == 4
    assert "no AWS credentials" in done.stderr and "aws configure" in done.stderr
    assert "Traceback" not in done.stderr


class BreakingBody:
    """A body that gives a little and then loses its connection."""

    def __init__(self, body: Any) -> None:
        self.body, self.left = body, 100_000

    def read(self, count: int) -> bytes:
        if self.left <= 0:
            raise ConnectionResetError("gone")
        content: bytes = self.body.read(min(count, self.left))
        self.left -= len(content)
        return content

    def close(self) -> None:
        self.body.close()


def break_connection(stream: ObjectStream, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Let every connection of the stream break; returns the requests that follow."""
    requests: list[dict[str, Any]] = []
    ask = stream._client.get_object

    def get_object(**request: Any) -> Any:
        requests.append(request)
        answer = ask(**request)
        return answer | {"Body": BreakingBody(answer["Body"])}

    monkeypatch.setattr(stream._client, "get_object", get_object)
    monkeypatch.setattr(stream, "_body", BreakingBody(stream._body))
    monkeypatch.setattr("tenacity.nap.time.sleep", lambda _: None)
    return requests


def test_a_broken_connection_is_gone_on_with(bucket: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    bucket.put_object(Key="a.jsonl", Body=PAIRS)
    with ObjectStream("s3://data/a.jsonl") as stream:
        requests = break_connection(stream, monkeypatch)
        assert stream.readall() == PAIRS
    assert len(requests) >= len(PAIRS) // 100_000
    assert requests[0]["Range"] == "bytes=100000-" and requests[0]["IfMatch"]


def test_an_object_that_was_replaced_meanwhile_is_refused(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="a.jsonl", Body=PAIRS)
    with ObjectStream("s3://data/a.jsonl") as stream:
        break_connection(stream, monkeypatch)
        bucket.put_object(Key="a.jsonl", Body=PAIRS[::-1])
        with pytest.raises(CloudRefused, match="PreconditionFailed"):
            stream.readall()
