"""A job's log and output as SageMaker leaves them, read from moto's CloudWatch Logs and S3."""

from __future__ import annotations

import io
import json
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from job_records import make_record
from moto import mock_aws

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.sagemaker import logs, output
from cloudft.endpoint.sagemaker.cloudwatch_log_stream import LogStream
from cloudft.errors import DamagedJob
from cloudft.storage.artifacts import TRAINING_CSV
from cloudft.storage.home import Home
from cloudft.storage.store import Store

REGION, BUCKET = "us-east-1", "some-bucket"


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        boto3.client("s3", region_name=REGION).create_bucket(Bucket=BUCKET)
        boto3.client("logs", region_name=REGION).create_log_group(logGroupName=logs.LOG_GROUP)
        yield Aws(AwsLocation(region=REGION))


def write(stream: str, *lines: tuple[int, str]) -> None:
    client = boto3.client("logs", region_name=REGION)
    client.create_log_stream(logGroupName=logs.LOG_GROUP, logStreamName=stream)
    start = int(time.time() * 1000) - 100_000
    client.put_log_events(
        logGroupName=logs.LOG_GROUP,
        logStreamName=stream,
        logEvents=[{"timestamp": start + at, "message": text} for at, text in lines],
    )


def test_the_log_of_a_tenth_machine_is_not_that_of_the_first(aws: Aws) -> None:
    for number in (1, 2, 10, 11):
        write(f"job/algo-{number}-17", (0, f"machine {number}"))
    assert [line.text for line in logs.iter_log_lines(aws, ["job"])] == ["machine 1"]


def point(step: int, split: str = "train", loss: float = 1.0) -> str:
    row = {"step": step, "epoch": 0, "split": split, "loss": loss, "perplexity": 2.0}
    more = {"learningRate": None, "tokensPerSecond": None, "timestamp": ""}
    return f"{logs.LINE_MARKER}metric {json.dumps(row | more)}"


def test_a_cursor_continues_within_one_millisecond_and_over_streams(aws: Aws) -> None:
    write("job/algo-1-1", (0, "a"), (0, "b"), (0, "c"), (5, point(0)), (5, "d"))
    write("job/algo-2-1", (0, "another machine"))
    write("job-r1/algo-1-1", (9, "e"))
    names = ["job", "job-r1"]
    lines = list(logs.iter_log_lines(aws, names))
    assert [line.text for line in lines] == ["a", "b", "c", "d", "e"]
    for number, line in enumerate(lines):
        assert list(logs.iter_log_lines(aws, names, line.cursor)) == lines[number + 1 :]
    assert list(logs.iter_log_lines(aws, ["nothing"])) == []


def test_the_curve_is_read_off_lines_that_others_wrote_into(aws: Aws) -> None:
    state = f"{logs.LINE_MARKER}state {json.dumps({'progress': {'step': 2}})}"
    write(
        "job/algo-1-1",
        *((0, point(0)), (1, f"Loading weights: 3%{point(1)}"), (2, point(2, loss=5.0))),
        *((3, point(2, "validation")), (4, state), (5, f"{logs.LINE_MARKER}metric {{torn")),
    )
    write("job/algo-1-2", (6, point(1, loss=2.0)), (7, point(2, loss=3.0)))
    found = logs.read_metrics(aws, ["job"])
    assert [(p.split, p.step, p.loss) for p in found] == [
        *(("train", 0, 1.0), ("train", 1, 2.0), ("train", 2, 3.0)),
        ("validation", 2, 1.0),
    ]
    assert [line.text for line in logs.iter_log_lines(aws, ["job"])] == ["Loading weights: 3%"]
    assert logs.read_newest_state(aws, "job") is None, "the newest machine has said nothing yet"
    assert logs.read_newest_state(aws, "other") is None


def packed(**files: bytes) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return raw.getvalue()


def put(key: str, content: bytes) -> None:
    boto3.client("s3", region_name=REGION).put_object(Bucket=BUCKET, Key=key, Body=content)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({}, None),
        (None, "holds no curve"),
        ({"../outside": b"x"}, "a name outside its folder"),
        ({"/absolute": b"x"}, "a name outside its folder"),
    ],
)
def test_an_output_comes_home_whole_or_not_at_all_and_nowhere_else(
    aws: Aws, tmp_path: Path, more: dict[str, bytes] | None, why: str | None
) -> None:
    files = {} if more is None else {TRAINING_CSV: b"step_number\n", **more}
    put("model.tar.gz", packed(**files))
    answer = {
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/jobs/x/output/"},
        "ModelArtifacts": {"S3ModelArtifacts": f"s3://{BUCKET}/model.tar.gz"},
    }
    home = Home(tmp_path / "home")
    store, folder = Store(home.jobs), home.jobs / "x"
    with store.create(make_record(store, "x", request={"home": {"data": {}}})):
        pass
    if why is None:
        assert output.download_artifacts(aws, answer, home, "x") == folder / "artifacts"
        made = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
        assert made == {f"artifacts/{TRAINING_CSV}", "job.json", "record.json", "submit.lock"}
    else:
        with pytest.raises(DamagedJob, match=why):
            output.download_artifacts(aws, answer, home, "x")
        assert not (folder / "artifacts").exists()
    assert not (tmp_path / "outside").exists() and not (home.jobs / "outside").exists()


@mock_aws
def test_a_container_that_may_write_no_log_runs_on() -> None:
    client = boto3.client("logs", region_name="us-east-1")
    requested: list[str] = []

    def deny(model: Any, **_: Any) -> None:
        requested.append(model.name)
        raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, model.name)

    client.meta.events.register("before-parameter-build.logs", deny)
    stream = LogStream(client, "x/algo-1-1")
    stream.write_line("a line")
    stream.close()
    assert requested == ["CreateLogGroup"]
