"""Unreachable is not refused: dead ends, half answers, pages of proxies, wrong clocks."""

from __future__ import annotations

import inspect
import json
import socket
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from typing import Any

import pytest
from botocore import exceptions as botocore_exceptions
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError
from botocore.parsers import ResponseParserError
from botocore.retries import standard
from endpoint import AWS_KEYS, REGION

from cloudft.aws import client as module
from cloudft.aws.botocore_errors import ERROR_KINDS, NotAnAwsResponse, error_kind
from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.error_translation import RETRYABLE_CODES, translate_aws_errors
from cloudft.errors import (
    ClockSkewed,
    CloudftError,
    CloudUnreachable,
    CredentialsExpired,
    PermissionDenied,
)

PAGE = b"<!DOCTYPE html><html><body>Please log in to the Wi-Fi</body></html>"
XHTML = b"<?xml version='1.0'?><!-- portal --><html><body>Please log in to the Wi-Fi</body></html>"
ONE = {"modelId": "one", "modelArn": "arn:aws:bedrock:us-east-1::foundation-model/one"}
MODELS = json.dumps({"modelSummaries": [ONE]}).encode()
OBJECTS = b"<?xml version='1.0'?><ListBucketResult><Contents><Key>one</Key></Contents>"
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "bedrock": ("list_foundation_models", {}),
    "s3": ("list_objects_v2", {"Bucket": "bucket"}),
    "sts": ("get_caller_identity", {}),
    "cloudformation": ("describe_stacks", {}),
    "sagemaker": ("list_training_jobs", {}),
}


def http_response(body: bytes, kind: str, length: int | None = None) -> bytes:
    """Return an HTTP response; `length` may promise more bytes than it has."""
    size = len(body) if length is None else length
    head = f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {size}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


class Server:
    """Gives every request the same bytes."""

    def __init__(self) -> None:
        self.answer = b""
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listening.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                connection.recv(65536)
                connection.sendall(self.answer)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.listening.shutdown(socket.SHUT_RDWR)
    made.listening.close()


@pytest.fixture(scope="module")
def account(server: Server) -> Iterator[Aws]:
    """Yield the services at that server. Creating clients is the slowest part of these tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in AWS_KEYS.items():
            patch.setenv(name, value)
        aws = Aws(AwsLocation(REGION, None, server.url))
        for service in CALLS:
            aws.client(service)
        yield aws


@pytest.fixture(autouse=True)
def no_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(module, "DEADLINE_S", 0.0)


def closed_port() -> str:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return f"http://127.0.0.1:{one.getsockname()[1]}"


def unreachable_message(aws: Aws, service: str) -> str:
    operation, parameters = CALLS[service]
    with pytest.raises(CloudUnreachable) as caught:
        aws.call("it can't be listed", service, operation, **parameters)
    assert caught.value.exit_code == 5
    return caught.value.message


@pytest.mark.parametrize("url", ["", "http://no-such-host.invalid"])
def test_no_connection_is_unreachable(url: str) -> None:
    unreachable_message(Aws(AwsLocation(REGION, None, url or closed_port())), "sts")


@pytest.mark.parametrize("page", [PAGE, XHTML])
@pytest.mark.parametrize("kind", ["text/html", "application/xml"])
@pytest.mark.parametrize("service", CALLS)
def test_a_page_of_a_proxy_is_no_answer(
    account: Aws, server: Server, service: str, kind: str, page: bytes
) -> None:
    server.answer = http_response(page, kind)
    assert "web page" in unreachable_message(account, service)


HALVES = [
    ("bedrock", http_response(MODELS[:-5], "application/json", len(MODELS))),
    ("bedrock", http_response(MODELS[:-5], "application/json")),
    ("sagemaker", http_response(b'{"TrainingJobSummaries": [', "application/x-amz-json-1.1")),
    ("s3", http_response(OBJECTS, "application/xml")),
    ("s3", http_response(OBJECTS, "application/xml", 4096)),
    ("sts", http_response(b"<GetCallerIdentityResponse><GetCaller", "text/xml")),
    ("bedrock", b""),
    ("s3", http_response(b"", "application/xml")),
    ("bedrock", http_response(b"", "application/json")),
    ("bedrock", http_response(b'"x"', "application/json")),
    ("bedrock", http_response(b'{"modelSummaries": [{}]}', "application/json")),
    ("bedrock", http_response(b'{"modelSummaries": "x"}', "application/json")),
    ("bedrock", http_response(b'{"modelSummaries": [1]}', "application/json")),
    ("cloudformation", http_response(b"", "text/xml")),
    ("cloudformation", http_response(b"<Problem/>", "text/xml")),
]


@pytest.mark.parametrize(("service", "answer"), HALVES)
def test_half_an_answer_is_none(account: Aws, server: Server, service: str, answer: bytes) -> None:
    server.answer = answer
    unreachable_message(account, service)


def test_a_whole_answer_is_taken(account: Aws, server: Server) -> None:
    server.answer = http_response(MODELS, "application/json")
    found = account.call("it", "bedrock", "list_foundation_models")
    assert found["modelSummaries"] == [ONE]


def test_a_list_that_gives_its_first_page_for_ever_ends(account: Aws, server: Server) -> None:
    model = dict.fromkeys(("modelArn", "modelName", "baseModelArn", "baseModelName"), "x")
    page = {"modelSummaries": [model | {"creationTime": "2026-01-01T00:00:00Z"}], "nextToken": "a"}
    server.answer = http_response(json.dumps(page).encode(), "application/json")
    with pytest.raises(CloudUnreachable, match="same page"):
        list(account.paginate("it", "bedrock", "list_custom_models", "modelSummaries"))


def test_after_a_proxys_page_every_service_is_tried_once_until_one_answers(
    account: Aws, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard against a wait for each service: seven lists of `ps` took seven times as long."""
    monkeypatch.setattr(module, "OFFLINE_S", 0.3)
    server.answer = http_response(PAGE, "text/html")
    unreachable_message(account, "bedrock")
    started = time.monotonic()
    for service in ("sts", "s3", "sagemaker"):
        unreachable_message(account, service)
    assert time.monotonic() - started < 0.3
    server.answer = http_response(MODELS, "application/json")
    assert account.call("it", "bedrock", "list_foundation_models")["modelSummaries"] == [ONE]
    assert account._is_down is False


def test_a_service_that_no_connection_led_to_is_then_tried_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "DEADLINE_S", 0.3)
    aws = Aws(AwsLocation(REGION, None, closed_port()))
    tries: list[int] = []
    monkeypatch.setattr(
        aws.client("sts"), "get_caller_identity", lambda: (tries.append(1), _refuse_connection())
    )
    for _ in range(3):
        with pytest.raises(CloudUnreachable):
            aws.call("it", "sts", "get_caller_identity")
    first = len(tries) - 2
    assert first > 1, "the first call is tried again, the two others are not"


def _refuse_connection() -> None:
    raise EndpointConnectionError(endpoint_url="http://127.0.0.1:1")


def exceptions() -> dict[str, type[BaseException]]:
    """Return every exception class of botocore."""
    return {
        name: one
        for name, one in inspect.getmembers(botocore_exceptions, inspect.isclass)
        if one.__module__ == "botocore.exceptions"
        and issubclass(one, Exception)
        and not issubclass(one, Warning)
    }


def test_every_exception_of_botocore_has_its_kind() -> None:
    ours = {NotAnAwsResponse.__name__, ResponseParserError.__name__}
    assert ERROR_KINDS.keys() == exceptions().keys() | ours
    assert error_kind(NotAnAwsResponse("x")) == "foreign"
    for one in (ResponseParserError("x"), ReadTimeoutError(endpoint_url="x")):
        assert error_kind(one) == "unreachable"
    assert error_kind(ConnectionError()) is None, "Python's own has the name of one of botocore's"


def test_what_botocore_would_try_again_is_tried_again() -> None:
    codes = {
        *standard.TransientRetryableChecker._TRANSIENT_ERROR_CODES,
        *standard.ThrottledRetryableChecker._THROTTLED_ERROR_CODES,
    }
    assert codes - RETRYABLE_CODES == {"LimitExceededException"}


def translated_error(code: str, said: str, minutes: float) -> CloudftError:
    """Return cloudft's error for a refusal by a service whose clock differs by `minutes`."""
    then = datetime.now(timezone.utc) - timedelta(minutes=minutes)
    headers = {"date": format_datetime(then, usegmt=True)}
    answer: Any = {
        "Error": {"Code": code, "Message": said},
        "ResponseMetadata": {"HTTPHeaders": headers, "HTTPStatusCode": 403},
    }
    with pytest.raises(CloudftError) as caught, translate_aws_errors("it can't be listed"):
        raise ClientError(answer, "ListIt")
    return caught.value


@pytest.mark.parametrize(
    "code",
    [
        *("RequestTimeTooSkewed", "RequestExpired", "SignatureDoesNotMatch"),
        *("InvalidSignatureException", "AuthFailure", "ExpiredTokenException"),
    ],
)
def test_a_wrong_clock_is_no_login(code: str) -> None:
    slow, fast = (
        translated_error(code, "Signature expired", -20),
        translated_error(code, "Not yet current", 20),
    )
    assert isinstance(slow, ClockSkewed) and "20 minutes behind" in slow.message
    assert isinstance(fast, ClockSkewed) and "20 minutes ahead" in fast.message
    assert slow.fix and "clock" in slow.fix and "log in" not in slow.fix
    assert slow.exit_code == 4


def test_a_right_clock_leaves_what_was_said() -> None:
    assert isinstance(
        translated_error("RequestExpired", "Request has expired", 0), CredentialsExpired
    )
    wrong = translated_error("SignatureDoesNotMatch", "The signature does not match", 0)
    assert isinstance(wrong, PermissionDenied) and "secret" in str(wrong.fix)
