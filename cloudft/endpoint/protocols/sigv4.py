"""Verify the signature (AWS Signature Version 4) of a request's `Authorization` header.

Used if the endpoint was started with credentials. botocore signs requests by the same steps, so its
own methods build what is compared. The payload is covered by the header x-amz-content-sha256 if
there is one, else by the bytes of the body. Source: IAM user guide, "Create a signed AWS API
request".
"""

from __future__ import annotations

import configparser
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.compat import HTTPHeaders
from botocore.credentials import Credentials

from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.errors import UsageError

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request,\s*SignedHeaders=(?P<names>[^,\s]+),"
    r"\s*Signature=(?P<signature>[0-9a-f]{64})"
)
MAX_CLOCK_SKEW = timedelta(minutes=15)
"""How far the time of a signature may be from the endpoint's clock."""


@dataclass(frozen=True)
class SignedRequest:
    """The parts of a request that a signature covers.

    `raw_path` is percent-encoded; `headers` have lower-case names. `body` may be None if the header
    x-amz-content-sha256 has its digest.
    """

    method: str
    raw_path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | None


class _HeadersAsSigned:
    """Mixin for botocore's signers: cover the headers that the client's signature covers.

    botocore's own choice leaves out headers that proxies change, such as User-Agent; other SDKs
    sign some of them.
    """

    def headers_to_sign(self, request: Any) -> Any:
        """Return the headers that the signature names."""
        headers = HTTPHeaders()
        for name in request.context["signed_headers"]:
            headers[name] = request.headers.get(name, "")
        return headers


class _Verifier(_HeadersAsSigned, SigV4Auth):  # type: ignore[misc] # botocore has no types
    """The signing steps of every service but S3: the path is normalized and encoded once more."""


class _S3Verifier(_HeadersAsSigned, S3SigV4Auth):  # type: ignore[misc] # botocore has no types
    """The signing steps of S3: the path is signed as it was sent."""


def read_credentials(path: Path) -> dict[str, str]:
    """Return access key -> secret key, of every profile of an AWS credentials file.

    Raises UsageError.
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        return {
            parser[name]["aws_access_key_id"]: parser[name]["aws_secret_access_key"]
            for name in parser.sections()
        }
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        # The parser's own message may quote a line, and that may be a secret.
        raise UsageError(
            f"{path} is not a credentials file ({type(error).__name__})",
            fix="use the format of ~/.aws/credentials.",
        ) from None


def verify_signature(
    request: SignedRequest, secret_keys: Mapping[str, str], now: datetime | None = None
) -> None:
    """Raise ServiceError, as AWS does, unless a request is signed with one of the secret keys.

    `secret_keys` maps access keys to secret keys. `now` is the endpoint's clock, in UTC.
    """
    claimed = AUTHORIZATION.fullmatch(request.headers.get("authorization", ""))
    if claimed is None:
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
    secret_key = secret_keys.get(claimed["key"])
    if secret_key is None:
        message = "The security token included in the request is invalid."
        raise ServiceError("UnrecognizedClientException", message)
    _check_time(request.headers.get("x-amz-date", ""), now or datetime.now(timezone.utc))
    # A plain comparison would take longer the more leading characters are right.
    if not hmac.compare_digest(_sign(request, claimed, secret_key), claimed["signature"]):
        raise ServiceError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )


def _check_time(timestamp: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(timestamp, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ServiceError("IncompleteSignatureException", "There is no valid X-Amz-Date") from None
    # A signature that was recorded can't be used again later.
    if abs(now - signed_at) > MAX_CLOCK_SKEW:
        raise ServiceError("RequestExpired", "Signature expired: check the clock")


def _sign(request: SignedRequest, claimed: re.Match[str], secret_key: str) -> str:
    """Return the signature that a client with this secret key gives to the request."""
    signer = (_S3Verifier if claimed["service"] == "s3" else _Verifier)(
        Credentials(claimed["key"], secret_key), claimed["service"], claimed["region"]
    )
    aws_request = AWSRequest(
        method=request.method,
        url=f"http://host{request.raw_path or '/'}",
        # As pairs: botocore encodes and sorts these, whatever spelling the client sent.
        params=parse_qsl(request.query, keep_blank_values=True),
        headers=dict(request.headers),
        data=request.body or b"",
    )
    aws_request.context["timestamp"] = request.headers["x-amz-date"]
    aws_request.context["signed_headers"] = claimed["names"].split(";")
    string_to_sign = signer.string_to_sign(aws_request, signer.canonical_request(aws_request))
    return str(signer.signature(string_to_sign, aws_request))
