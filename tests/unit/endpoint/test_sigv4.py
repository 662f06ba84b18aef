"""Requests as SDKs sign them: botocore's own signer here, other clients in tests/e2e."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from urllib.parse import urlsplit

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.protocols.sigv4 import SignedRequest, verify_signature

KEYS = {"AKIATEAM": "s3cr3t/+x"}


def sign(
    service: str = "bedrock",
    *,
    path: str = "/",
    params: dict[str, str] | None = None,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
    signed_also: str | None = None,
) -> SignedRequest:
    """Return a request that botocore signed. `signed_also` is a header that it leaves out."""

    class Signer(S3SigV4Auth if service == "s3" else SigV4Auth):  # type: ignore[misc]
        def headers_to_sign(self, request: AWSRequest) -> object:
            chosen = super().headers_to_sign(request)
            if signed_also:
                chosen[signed_also.lower()] = request.headers[signed_also]
            return chosen

    url = f"http://127.0.0.1:5000{path}"
    request = AWSRequest(
        method="POST", url=url, params=params or {}, data=body, headers=headers or {}
    )
    Signer(Credentials("AKIATEAM", KEYS["AKIATEAM"]), service, "us-east-1").add_auth(request)
    prepared = request.prepare()
    parts = urlsplit(prepared.url)
    sent = {
        name.lower(): value.decode() if isinstance(value, bytes) else str(value)
        for name, value in prepared.headers.items()
    }
    sent.setdefault("host", "127.0.0.1:5000")
    return SignedRequest("POST", parts.path, parts.query, sent, body)


def error_code(request: SignedRequest, now: datetime | None = None) -> str:
    with pytest.raises(ServiceError) as caught:
        verify_signature(request, KEYS, now)
    return caught.value.code


@pytest.mark.parametrize("service", ["bedrock", "s3", "iam"])
@pytest.mark.parametrize(
    "path",
    ["/", "/bucket/a%20file%2B%C3%BC.txt", "/custom-model/arn%3Aaws%3Abedrock%2Fx", "//a/./b/../c"],
)
def test_a_signed_request_is_verified_whatever_its_path_and_query(service: str, path: str) -> None:
    params = {"b": "x y+z", "a": "", "a/ü": "1=2&3", "A": "~._-"}
    verify_signature(sign(service, path=path, params=params, body=b'{"x": 1}'), KEYS)


def test_a_header_that_other_sdks_sign_is_verified() -> None:
    """The SDK for Java, version 1, signs User-Agent; botocore would leave it out."""
    headers = {"User-Agent": "aws-sdk-java/1.12  Linux"}
    verify_signature(sign(headers=headers, signed_also="User-Agent"), KEYS)


@pytest.mark.parametrize("part", ["method", "raw_path", "query", "body", "header"])
def test_a_changed_request_is_refused(part: str) -> None:
    request = sign(params={"a": "1"}, body=b"{}", headers={"X-Amz-Target": "A.B"})
    changed = {
        "method": {"method": "GET"},
        "raw_path": {"raw_path": "/other"},
        "query": {"query": "a=2"},
        "body": {"body": b"[]"},
        "header": {"headers": {**request.headers, "x-amz-target": "A.C"}},
    }[part]
    assert error_code(SignedRequest(**{**vars(request), **changed})) == "InvalidSignatureException"


def test_time_and_credentials_are_checked() -> None:
    request = sign()
    later = datetime.now(timezone.utc) + timedelta(minutes=16)
    assert error_code(request, later) == "RequestExpired"
    no_date = {**request.headers, "x-amz-date": ""}
    assert (
        error_code(SignedRequest(**{**vars(request), "headers": no_date}))
        == "IncompleteSignatureException"
    )
    unsigned = SignedRequest("GET", "/", "", {}, b"")
    assert error_code(unsigned) == "MissingAuthenticationTokenException"
    other_key = request.headers["authorization"].replace("AKIATEAM", "AKIAOTHER")
    headers = {**request.headers, "authorization": other_key}
    other = SignedRequest(**{**vars(request), "headers": headers})
    assert error_code(other) == "UnrecognizedClientException"
