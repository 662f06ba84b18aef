"""Files to S3: skipped when there, resumed, refused when damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
from endpoint import ACCOUNT, AWS_KEYS, BUCKET, REGION, Endpoint, running_endpoint

from cloudft.aws import upload as module
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.upload import Upload, upload_file
from cloudft.errors import CloudRefused

MB = 1024 * 1024


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Aws:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "PART", 5 * MB)
    return Aws(AwsLocation(region=REGION, endpoint_url=endpoint.url))


def file_of(folder: Path, size: int, key: str) -> Upload:
    content = (key.encode() + bytes(range(256))) * (size // 256 + 1)
    path = folder / "file"
    path.write_bytes(content[:size])
    return Upload(path, BUCKET, key, hashlib.sha256(content[:size]).hexdigest(), ACCOUNT)


def read_stored(aws: Aws, wanted: Upload) -> bytes:
    answer = aws.client("s3").get_object(Bucket=BUCKET, Key=wanted.key)
    content: bytes = answer["Body"].read()
    return content


@pytest.mark.parametrize("size", [0, 1, 5 * MB, 5 * MB + 1, 17 * MB])
def test_a_file_arrives_whole_and_is_skipped_afterwards(
    aws: Aws, tmp_path: Path, size: int
) -> None:
    wanted = file_of(tmp_path, size, f"whole-{size}")
    progress: list[int] = []
    assert upload_file(aws, wanted, progress.append)
    assert read_stored(aws, wanted) == wanted.path.read_bytes()
    assert sum(progress) == size
    modified = aws.client("s3").head_object(Bucket=BUCKET, Key=wanted.key)["LastModified"]
    assert not upload_file(aws, wanted)
    again = aws.client("s3").head_object(Bucket=BUCKET, Key=wanted.key)["LastModified"]
    assert again == modified


def test_an_object_of_other_content_is_replaced(aws: Aws, tmp_path: Path) -> None:
    wanted = file_of(tmp_path, 1000, "stale")
    aws.client("s3").put_object(Bucket=BUCKET, Key="stale", Body=b"x" * 1000)
    assert upload_file(aws, wanted)
    assert read_stored(aws, wanted) == wanted.path.read_bytes()


@pytest.mark.parametrize(("days", "sent"), [(1, True), (29, True), (31, False), (None, False)])
def test_an_object_that_a_lifecycle_rule_would_remove_under_the_job_is_sent_again(
    aws: Aws, tmp_path: Path, days: int | None, sent: bool
) -> None:
    wanted = file_of(tmp_path, 1000, f"ends-{days}")
    assert upload_file(aws, wanted)

    def expiring(parsed: dict[str, Any], **_: Any) -> None:
        if days is not None:  # as S3 says it in the header x-amz-expiration; moto does not
            date = format_datetime(datetime.now(timezone.utc) + timedelta(days), usegmt=True)
            parsed["Expiration"] = f'expiry-date="{date}", rule-id="StagedDataEnds"'

    aws.client("s3").meta.events.register("after-call.s3.HeadObject", expiring)
    assert upload_file(aws, wanted) == sent


def test_an_upload_that_broke_off_goes_on_behind_its_parts(
    aws: Aws, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = file_of(tmp_path, 22 * MB, "broken-off")
    real = Aws.call
    sent: list[int] = []

    def breaking(self: Aws, what: str, service: str, operation: str, **more: Any) -> Any:
        if operation == "upload_part":
            if more["PartNumber"] > 3 and not sent.count(-1):
                sent.append(-1)
                raise CloudRefused("broken off")
            sent.append(more["PartNumber"])
        return real(self, what, service, operation, **more)

    monkeypatch.setattr(Aws, "call", breaking)
    monkeypatch.setattr(module, "WORKERS", 1)
    with pytest.raises(CloudRefused):
        upload_file(aws, wanted)
    before = [number for number in sent if number > 0]
    assert set(before) >= {1, 2, 3} and 4 not in before
    assert upload_file(aws, wanted)
    assert sorted(n for n in sent if n > 0) == [1, 2, 3, 4, 5]
    assert read_stored(aws, wanted) == wanted.path.read_bytes()
    assert not aws.client("s3").list_multipart_uploads(Bucket=BUCKET).get("Uploads")
