"""Fixes that name the IAM action, and pages that repeat."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import AWS_KEYS, REGION

from cloudft.aws.arn import parse_arn
from cloudft.aws.client import Aws, AwsLocation, Response
from cloudft.aws.error_translation import translate_aws_errors
from cloudft.errors import CloudUnreachable, PermissionDenied

DENIED = (
    "User: arn:aws:iam::123456789012:user/ann is not authorized to perform:"
    " bedrock:CreateModelCustomizationJob on resource: arn:aws:bedrock:us-east-1:1:model/x"
)


@pytest.mark.parametrize(
    ("service", "operation", "message", "fix"),
    [
        (
            "bedrock",
            "CreateModelCustomizationJob",
            DENIED,
            "grant bedrock:CreateModelCustomizationJob to arn:aws:iam::123456789012:user/ann.",
        ),
        ("s3", "HeadBucket", "Forbidden", "grant s3:ListBucket to the identity that you use."),
        ("bedrock-runtime", "Converse", "", "grant bedrock:InvokeModel to the identity that"),
        ("stepfunctions", "StartExecution", "", "grant states:StartExecution to the identity"),
        (None, "ListBuckets", "", "grant ListBuckets to the identity that you use."),
    ],
)
def test_a_denied_operation_names_the_iam_action_to_grant(
    service: str | None, operation: str, message: str, fix: str
) -> None:
    response: Any = {"Error": {"Code": "AccessDenied", "Message": message}}
    with pytest.raises(PermissionDenied) as denied, translate_aws_errors("x", service=service):
        raise ClientError(response, operation)
    assert str(denied.value.fix).startswith(fix)


class _Pages(Aws):
    """An account whose lists return these pages."""

    def __init__(self, pages: Iterator[Response]) -> None:
        super().__init__(AwsLocation(REGION))
        self._pages = pages

    def call(self, failure: str, service: str, operation: str, **parameters: Any) -> Response:
        return next(self._pages)


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


def test_pages_are_read_by_the_tokens_of_each_operation() -> None:
    pages = [
        {"Contents": [{"Key": "a"}], "IsTruncated": True, "NextContinuationToken": "1"},
        {"IsTruncated": True, "NextContinuationToken": "2"},
        {"Contents": [{"Key": "b"}], "IsTruncated": False},
    ]
    aws = _Pages(iter(pages))
    items = list(aws.paginate("x", "s3", "list_objects_v2", "Contents", Bucket="bucket"))
    assert [item["Key"] for item in items] == ["a", "b"]
    aws = _Pages(iter([{"Parts": [1], "IsTruncated": False, "NextPartNumberMarker": 0}]))
    parts = aws.paginate("x", "s3", "list_parts", "Parts", Bucket="b", Key="k", UploadId="u")
    assert list(parts) == [1]


def test_pages_in_a_circle_end() -> None:
    circle = ({"modelSummaries": [], "nextToken": "ab"[n % 2]} for n in range(100))
    with pytest.raises(CloudUnreachable, match="same page"):
        list(_Pages(circle).paginate("x", "bedrock", "list_custom_models", "modelSummaries"))


def test_an_arn_has_parts_and_other_text_has_none() -> None:
    arn = parse_arn("arn:aws-us-gov:bedrock:us-gov-west-1:1:custom-model/a.b-v1:0:8k/x")
    assert arn == ("aws-us-gov", "bedrock", "us-gov-west-1", "1", "custom-model/a.b-v1:0:8k/x")
    with pytest.raises(ValueError, match="must be of the format"):
        parse_arn("amazon.nova-lite-v1:0")
