"""The objects that records name are looked up before submit: there, small enough, readable."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.bedrock.media_checks import MAX_OBJECTS, check_media
from cloudft.backends.findings import FindingFactory
from cloudft.data.checks.content_limits import MediaUse
from cloudft.errors import CloudUnreachable, PermissionDenied, ResourceNotFound
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Finding

Answer = Callable[[dict[str, Any]], dict[str, Any]]


class CannedAws(Aws):
    """S3 and IAM with answers of our own. `requests` are the reads of objects."""

    def __init__(self, head: Answer, decision: str = "allowed") -> None:
        super().__init__(AwsLocation("us-east-1"))
        self.head, self.decision, self.requests = head, decision, []

    def call(self, failure: str, service: str, operation: str, **parameters: Any) -> Any:
        if operation == "head_object":
            self.requests.append(parameters)
            return self.head(parameters)
        assert operation == "simulate_principal_policy", operation
        return {
            "EvaluationResults": [
                {"EvalActionName": a, "EvalResourceName": r, "EvalDecision": self.decision}
                for a in parameters["ActionNames"]
                for r in parameters["ResourceArns"]
            ],
            "IsTruncated": False,
        }


def make_job(folder: Path, model: str = "nova-lite", count: int = 8) -> LoadedJob:
    block = {"format": "png", "source": {"s3Location": {"uri": "s3://bucket/pictures/N.png"}}}
    lines = []
    for index in range(count):
        image = json.loads(json.dumps(block).replace("N.png", f"{index}.png"))
        turns = [
            {"role": "user", "content": [{"text": "What?"}, {"image": image}]},
            {"role": "assistant", "content": [{"text": "A fern."}]},
        ]
        lines.append(json.dumps({"messages": turns}))
    (folder / "train.jsonl").write_text("\n".join(lines) + "\n")
    text = (
        f"name: x\nbase_model: {model}\ndata: {{train: train.jsonl}}\n"
        "bedrock: {region: us-east-1, role_arn: 'arn:aws:iam::123456789012:role/r',"
        " s3_uri: 's3://bucket/x'}\n"
    )
    (folder / "cloudft.yaml").write_text(text)
    return load_job(folder / "cloudft.yaml")


def media_of(*uris: str) -> MediaUse:
    use = MediaUse()
    for uri in uris:
        use.add("image", uri, uri.split("/")[2])
    return use


def raising(error: Exception) -> Answer:
    def head(_: dict[str, Any]) -> dict[str, Any]:
        raise error

    return head


def small(_: dict[str, Any]) -> dict[str, Any]:
    return {"ContentLength": 1_000}


def codes(job: LoadedJob, media: MediaUse, aws: CannedAws) -> list[tuple[str, str]]:
    found = list(check_media(job, media, aws, FindingFactory(job)))
    return [(finding.severity, finding.code) for finding in found]


@pytest.mark.parametrize(
    ("aws", "uri", "expected"),
    [
        (CannedAws(small), "s3://bucket/a.png", []),
        (CannedAws(raising(ResourceNotFound("no"))), "s3://bucket/a.png", [("error", "NoMedia")]),
        (
            CannedAws(lambda _: {"ContentLength": 10 * 1024**2 + 1}),
            "s3://bucket/a.png",
            [("error", "MediaTooLarge")],
        ),
        (
            CannedAws(raising(PermissionDenied("may not"))),
            "s3://bucket/a.png",
            [("warning", "CouldNotCheck")],
        ),
        (
            CannedAws(raising(CloudUnreachable("down"))),
            "s3://bucket/a.png",
            [("warning", "CouldNotReach")],
        ),
        (CannedAws(small), "s3://other/a.png", [("error", "MediaInOtherBucket")]),
        (CannedAws(small, "implicitDeny"), "s3://bucket/a.png", [("error", "RoleDenied")]),
    ],
)
def test_what_is_wrong_with_an_object(
    tmp_path: Path, aws: CannedAws, uri: str, expected: list[tuple[str, str]]
) -> None:
    assert codes(make_job(tmp_path), media_of(uri), aws) == expected


def test_another_bucket_is_right_for_llama(tmp_path: Path) -> None:
    job = make_job(tmp_path, "llama-3.2-11b-vision", 100)
    assert codes(job, media_of("s3://other/a.png"), CannedAws(small)) == []


def test_the_first_objects_are_looked_at(tmp_path: Path) -> None:
    aws = CannedAws(small)
    assert codes(make_job(tmp_path), media_of(*(f"s3://bucket/{i}" for i in range(99))), aws) == []
    assert [one["Key"] for one in aws.requests] == [str(i) for i in range(MAX_OBJECTS)]


def test_check_and_submit_look_at_the_objects_of_the_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job(tmp_path)
    aws = CannedAws(raising(ResourceNotFound("no")))
    home = Home(tmp_path / "home")
    backend = BedrockBackend(home, aws)
    monkeypatch.setattr(BedrockBackend, "check", lambda self, job: [])
    monkeypatch.setattr(BedrockBackend, "records_quota", lambda self, job: None)

    def missing(findings: tuple[Finding, ...]) -> int:
        return sum(finding.code == "NoMedia" for finding in findings)

    assert missing(prepare.check(job, backend).findings) == 8
    with pytest.raises(prepare.CheckFailed) as error:
        prepare.prepare(job, backend, home)
    assert missing(error.value.findings) == 8
