"""Every response has a request id, whatever the operation and whether it succeeds."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from endpoint import REGION, Endpoint, running_endpoint

from cloudft.aws.request_validation import load_service_model

SIGNING_NAMES = {
    "bedrock": "bedrock",
    "bedrock-runtime": "bedrock",
    "bedrock-mantle": "bedrock-mantle",
    "cloudformation": "cloudformation",
    "iam": "iam",
    "lambda": "lambda",
    "sagemaker": "sagemaker",
    "service-quotas": "servicequotas",
    "sts": "sts",
}
"""Services of the endpoint, by which names requests to them are signed."""
REQUEST_ID = re.compile(r"[0-9a-zA-Z-]{16,}")


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as made:
        yield made


def authorization(service: str) -> str:
    """Return the header of a signature that this endpoint does not verify."""
    scope = f"AKIDEXAMPLE/20250101/{REGION}/{SIGNING_NAMES[service]}/aws4_request"
    return f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=abc"


def send(
    endpoint: Endpoint, method: str, path: str, body: bytes, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Return status, headers and body of the response."""
    connection = http.client.HTTPConnection(urlsplit(endpoint.url).netloc, timeout=60)
    connection.request(method, path, body, dict(headers))
    response = connection.getresponse()
    content = response.read()
    connection.close()
    return response.status, {k.lower(): v for k, v in response.getheaders()}, content


def requests_of(service: str) -> Iterator[tuple[str, str, str, bytes, dict[str, str]]]:
    """Yield each operation with a request that has nothing in it: name, method, path, body."""
    model = load_service_model(service)
    headers = {"Authorization": authorization(service)}
    for name in model.operation_names:
        route = model.operation_model(name).http
        path = re.sub(r"\{\w+\+?\}", "x", route["requestUri"])
        if model.metadata["protocol"] == "query":
            form = f"Action={name}&Version={model.metadata['apiVersion']}".encode()
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            yield name, "POST", "/", form, headers | kind
        elif "targetPrefix" in model.metadata:
            target = {"X-Amz-Target": f"{model.metadata['targetPrefix']}.{name}"}
            yield name, "POST", "/", b"{}", headers | target
        else:
            yield name, route["method"], path, b"{}", headers


@pytest.mark.parametrize("service", sorted(SIGNING_NAMES))
def test_every_operation_answers_with_a_request_id(endpoint: Endpoint, service: str) -> None:
    ids = set()
    for name, *request in requests_of(service):
        status, headers, _ = send(endpoint, *request)
        found = headers.get("x-amzn-requestid", headers.get("x-amz-request-id", ""))
        assert REQUEST_ID.fullmatch(found), (name, status, headers)
        ids.add(found)
    assert len(ids) == len(load_service_model(service).operation_names)


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "nonsense"},
        {"Authorization": "Bearer any"},
        {"Host": "elsewhere.example"},
        {"Origin": "https://elsewhere.example", "Authorization": "Bearer any"},
        {"Authorization": authorization("bedrock"), "Content-Length": "x"},
    ],
    ids=["unsigned", "unreadable", "api-key", "host", "origin", "length"],
)
@pytest.mark.parametrize(
    "path", ["/model/x/converse", "/openai/v1/chat/completions", "/v1/chat/completions", "/none"]
)
def test_every_refusal_has_a_request_id(
    endpoint: Endpoint, path: str, headers: dict[str, str]
) -> None:
    status, found, _ = send(endpoint, "POST", path, b"{}", headers)
    assert status >= 400 and REQUEST_ID.fullmatch(
        found.get("x-amzn-requestid", found.get("x-amz-request-id", ""))
    )


CHAT = [{"role": "user", "content": [{"text": "Hi"}]}]
NOVA = "amazon.nova-lite-v1:0"
INVOKE = json.dumps({"messages": CHAT, "inferenceConfig": {"maxTokens": 2}})


@pytest.mark.parametrize(
    ("operation", "request_members"),
    [
        ("converse", {"messages": CHAT, "inferenceConfig": {"maxTokens": 2}}),
        ("converse_stream", {"messages": CHAT, "inferenceConfig": {"maxTokens": 2}}),
        ("invoke_model", {"body": INVOKE}),
        ("invoke_model_with_response_stream", {"body": INVOKE}),
        ("count_tokens", {"input": {"converse": {"messages": CHAT}}}),
    ],
)
def test_an_answer_has_a_request_id_that_boto3_shows(
    endpoint: Endpoint, operation: str, request_members: Any
) -> None:
    call = getattr(endpoint.client("bedrock-runtime"), operation)
    first, second = (call(modelId=NOVA, **request_members) for _ in range(2))
    ids = {answer["ResponseMetadata"]["RequestId"] for answer in (first, second)}
    assert len(ids) == 2 and all(map(REQUEST_ID.fullmatch, ids))
    for answer in (first, second):
        for stream in ("stream", "body"):
            if stream in answer:
                [*answer[stream]]


def test_openai_s_client_gets_the_id_by_its_own_header(endpoint: Endpoint) -> None:
    body = {"model": NOVA, "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
    for path in ("/openai/v1/chat/completions", "/v1/nothing"):
        headers = {"Authorization": "Bearer any", "Content-Type": "application/json"}
        _, found, _ = send(endpoint, "POST", path, json.dumps(body).encode(), headers)
        assert found["x-request-id"] == found["x-amzn-requestid"]
