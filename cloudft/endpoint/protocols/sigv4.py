"""Signature version 4 of a request's headers, when the endpoint was given credentials.

Source: IAM user guide, "Create a signed AWS API request". Only the headers are proved: the payload
by its own header x-amz-content-sha256 where there is one, else by its bytes.
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from urllib.parse import parse_qsl, quote

from cloudft.endpoint.protocols.rest_json import ServiceError
from cloudft.errors import UsageError

AUTHORIZATION = re.compile(
    r"AWS4-HMAC-SHA256 Credential=(?P<key>[^/,\s]+)/(?P<scope>(?P<day>\d{8})/(?P<region>[^/]+)/"
    r"(?P<service>[^/]+)/aws4_request),\s*SignedHeaders=(?P<names>[^,\s]+),"
    r"\s*Signature=(?P<signature>[0-9a-f]{64})"
)
MAX_CLOCK_SKEW = timedelta(minutes=15)
"""How far the clock of a signature may be off."""


@dataclass(frozen=True)
class SignedRequest:
    """The parts of a request that a signature covers."""

    method: str
    raw_path: str
    query: str
    headers: Mapping[str, str]
    body: bytes | None


def read_credentials(path: Path) -> dict[str, str]:
    """Access key -> secret key, of every profile of an AWS credentials file. Raises UsageError."""
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
        found = {
            parser[name]["aws_access_key_id"]: parser[name]["aws_secret_access_key"]
            for name in parser.sections()
        }
    except (OSError, UnicodeDecodeError, configparser.Error, KeyError) as error:
        # The parser's own words may quote a line, and that may be a secret.
        raise UsageError(
            f"{path} is no credentials file ({type(error).__name__})",
            fix="write it as ~/.aws/credentials is written.",
        ) from None
    return found


def verify_signature(
    signed: SignedRequest, secrets: Mapping[str, str], now: datetime | None = None
) -> None:
    """Raise WireError, as AWS does, for a request that is not signed with one of the secrets."""
    given = AUTHORIZATION.fullmatch(signed.headers.get("authorization", ""))
    if given is None:
        raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
    secret = secrets.get(given["key"])
    if secret is None:
        what = "The security token included in the request is invalid."
        raise ServiceError("UnrecognizedClientException", what)
    moment = signed.headers.get("x-amz-date", "")
    _check_time(moment, now or datetime.now(timezone.utc))
    text = "\n".join(
        ["AWS4-HMAC-SHA256", moment, given["scope"], _digest(_canonical(signed, given).encode())]
    )
    key = f"AWS4{secret}".encode()
    for part in given["scope"].split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    made = hmac.digest(key, text.encode(), "sha256").hex()
    if not hmac.compare_digest(made, given["signature"]):
        raise ServiceError(
            "InvalidSignatureException",
            "The request signature we calculated does not match the signature you provided.",
        )


def _check_time(moment: str, now: datetime) -> None:
    try:
        signed_at = datetime.strptime(moment, "%Y%m%dT%H%M%SZ").replace(tzinfo=timezone.utc)
    except ValueError:
        raise ServiceError("IncompleteSignatureException", "There is no valid X-Amz-Date") from None
    if abs(now - signed_at) > MAX_CLOCK_SKEW:
        raise ServiceError("RequestExpired", "Signature expired: check the clock")


def _canonical(signed: SignedRequest, given: re.Match[str]) -> str:
    names = given["names"].split(";")
    path = signed.raw_path or "/"
    if given["service"] != "s3":  # every other service's path is encoded once more
        path = quote(path, safe="/-._~")
    pairs = sorted(
        (quote(name, safe="-._~"), quote(value, safe="-._~"))
        for name, value in parse_qsl(signed.query, keep_blank_values=True)
    )
    payload = signed.headers.get("x-amz-content-sha256")
    if payload is None:
        payload = _digest(signed.body or b"")
    lines = [f"{name}:{' '.join(signed.headers.get(name, '').split())}" for name in names]
    query = "&".join(f"{name}={value}" for name, value in pairs)
    return "\n".join([signed.method, path, query, *lines, "", given["names"], payload])


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
