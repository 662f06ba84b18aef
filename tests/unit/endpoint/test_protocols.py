"""What all services share: the ids of requests, and bodies that are stored as they came."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import BUCKET, Endpoint

CALLS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "rest-json": ("bedrock", lambda c: c.list_custom_models()),
    "rest-json error": ("bedrock", lambda c: c.get_custom_model(modelIdentifier="none")),
    "rest-json refusal": ("bedrock", lambda c: c.list_guardrails()),
    "runtime error": ("bedrock-runtime", lambda c: c.converse(modelId="none", messages=[])),
    "json": ("sagemaker", lambda c: c.list_training_jobs()),
    "json error": ("sagemaker", lambda c: c.describe_training_job(TrainingJobName="none")),
    "query": ("cloudformation", lambda c: c.list_stacks()),
    "query error": ("cloudformation", lambda c: c.describe_stacks(StackName="none")),
    "query refusal": ("cloudformation", lambda c: c.list_exports()),
    "moto's query": ("iam", lambda c: c.list_roles()),
    "moto's query error": ("iam", lambda c: c.get_role(RoleName="none")),
    "moto's json": ("logs", lambda c: c.describe_log_groups()),
    "moto's xml": ("s3", lambda c: c.list_buckets()),
    "moto's xml error": ("s3", lambda c: c.get_object(Bucket="none", Key="a")),
}


@pytest.mark.parametrize("call", CALLS)
def test_every_answer_has_the_id_of_its_request(fast_account: Endpoint, call: str) -> None:
    """By the headers that SDKs read (botocore, parsers.py; Smithy: `metadata.requestId`)."""
    service, perform = CALLS[call]
    try:
        answer = perform(fast_account.client(service))
    except ClientError as error:
        answer = error.response
    else:
        assert "err" not in call and "refusal" not in call
    metadata = answer["ResponseMetadata"]
    headers = metadata["HTTPHeaders"]
    identifier = headers.get("x-amzn-requestid") or headers.get("x-amz-request-id")
    assert identifier and metadata["RequestId"] == identifier


@pytest.mark.parametrize(
    "authorization", ["", "Basic eDp5", "AWS key:signature", "AWS4-HMAC-SHA256 unreadable"]
)
@pytest.mark.parametrize(
    ("path", "target", "body", "content_type"),
    [
        ("/custom-models", "", None, "application/json"),
        ("/", "SageMaker.ListTrainingJobs", b"{}", "application/x-amz-json-1.1"),
        ("/", "", b"Action=ListStacks&Version=2010-05-15", "text/xml"),
    ],
)
def test_a_request_that_is_not_signed_is_refused_in_its_protocols_form(
    fast_account: Endpoint,
    authorization: str,
    path: str,
    target: str,
    body: bytes | None,
    content_type: str,
) -> None:
    given = {"Authorization": authorization, "X-Amz-Target": target}
    headers = {name: value for name, value in given.items() if value}
    request = urllib.request.Request(fast_account.url + path, body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    answer = caught.value.headers
    assert answer["x-amzn-RequestId"] and answer["Content-Type"] == content_type
    assert "MissingAuthenticationToken" in f"{answer} {caught.value.read().decode()}"
    caught.value.close()


def test_s3_names_an_authorization_that_it_can_t_read(fast_account: Endpoint) -> None:
    url = f"{fast_account.url}/{BUCKET}/a"
    for authorization in ("Basic eDp5", "AWS4-HMAC-SHA256 unreadable"):
        request = urllib.request.Request(url, headers={"Authorization": authorization})
        with pytest.raises(urllib.error.HTTPError, match="400") as caught:
            urllib.request.urlopen(request)
        assert "<Code>InvalidArgument</Code>" in caught.value.read().decode()
        assert caught.value.headers["x-amz-request-id"]
        caught.value.close()


@pytest.mark.parametrize("presigned", [False, True])
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "multipart/form-data; boundary=x"]
)
def test_an_object_is_stored_as_it_came_whatever_it_claims_to_be(
    fast_account: Endpoint, kind: str, presigned: bool
) -> None:
    s3 = fast_account.client("s3")
    for body in (b"a=1&b=2", b"--x\r\n\r\nabc\r\n--x--\r\n", bytes(range(256))):
        if presigned:  # curl -T says that it sends a form, unless it is told otherwise
            where = {"Bucket": BUCKET, "Key": "form"}
            url = s3.generate_presigned_url("put_object", Params=where)
            request = urllib.request.Request(url, body, {"Content-Type": kind}, method="PUT")
            urllib.request.urlopen(request).close()
        else:
            s3.put_object(Bucket=BUCKET, Key="form", Body=body, ContentType=kind)
        stored = s3.get_object(Bucket=BUCKET, Key="form")
        assert (stored["Body"].read(), stored["ContentType"]) == (body, kind)


@pytest.mark.parametrize(
    ("service", "target", "path", "body", "message"),
    [
        ("sagemaker", "SageMaker.DescribeTrainingJob", "/", {"A": 1}, "Unknown member A"),
        (
            "sagemaker",
            "SageMaker.DescribeTrainingJob",
            "/",
            {"TrainingJobName": 1},
            "Value at 'TrainingJobName' is not of type string",
        ),
        (
            "bedrock",
            "",
            "/tagResource",
            {"resourceARN": "x" * 20, "tags": [{"key": []}]},
            "Value at 'tags.0.key' is not of type string",
        ),
    ],
)
def test_a_body_of_another_form_is_named_by_the_apis_names(
    fast_account: Endpoint, service: str, target: str, path: str, body: Any, message: str
) -> None:
    scope = f"Credential=a/20260101/us-east-1/{service}/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {scope}", "X-Amz-Target": target}
    sent = json.dumps(body).encode()
    request = urllib.request.Request(fast_account.url + path, sent, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    assert json.load(caught.value)["message"] == message
    caught.value.close()


def test_metadata_keys_keep_their_underscores(fast_account: Endpoint) -> None:
    s3 = fast_account.client("s3")
    metadata = {"my_key": "1", "other-key": "2"}
    s3.put_object(Bucket=BUCKET, Key="metadata", Body=b"", Metadata=metadata)
    assert s3.head_object(Bucket=BUCKET, Key="metadata")["Metadata"] == metadata
