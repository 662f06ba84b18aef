"""Encode and decode the lines of the replay log: requests that moto accepted.

The file is JSON Lines. The first line is `{"version": 2}`. A log without it has version 1: its
requests were written before moto answered them, and the number of a line is its seed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from urllib.parse import parse_qsl, unquote

import msgspec

from cloudft.endpoint.protocols.caller_identity import CREDENTIAL_SCOPE
from cloudft.errors import BadDocument
from cloudft.storage.documents import decode

VERSION = 2
HEADER = b'{"version":2}\n'
KEPT_VARIABLES = {
    "REQUEST_METHOD",
    "PATH_INFO",
    "QUERY_STRING",
    "REQUEST_URI",
    "RAW_URI",
    "CONTENT_TYPE",
}
"""Variables of the WSGI environment that are kept, beside the request's headers."""
DROPPED_HEADERS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_TRANSFER_ENCODING"}
"""Headers that are not kept.

The first two are conditions that may not hold at the replay, whose requests are fewer; the third
says that the body came in chunks, and the log has it complete.
"""
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
S3_CONTROL_PREFIX = "/v20180820/"
"""Beginning of the paths of S3 Control, a service of its own with the signing name of S3."""
SIGNATURE_PARAMETER = re.compile(r"x-amz-|x-id$|awsaccesskeyid$|signature$|expires$", re.IGNORECASE)
"""Query parameters that sign a request, or that SDKs add: they don't say what it does."""
READ_METHODS = {"GET", "HEAD", "OPTIONS"}
READ_ACTION = re.compile(rb"Action=(Get|List|Describe|Simulate)")
"""Bodies of the query protocol whose operation only reads."""
READ_TARGET = re.compile(r"[\w.]*\.(Get|List|Describe|BatchGet|Lookup)[A-Z]")
"""Values of `X-Amz-Target`, of the JSON protocol, whose operation only reads."""
STEP_FUNCTIONS_PREFIX = "AWSStepFunctions."
RECORDED_STEP_FUNCTIONS_OPERATIONS = {
    "CreateStateMachine",
    "DeleteStateMachine",
    "UpdateStateMachine",
}
"""Operations of Step Functions that are recorded.

Not StartExecution: an execution that is started again would do its work a second time.
"""


class LoggedRequest(msgspec.Struct, omit_defaults=True):
    """A request that moto accepted.

    `seed` is the seed of the ids that moto made for it. `status` is the HTTP status of moto's
    response, 0 if it is not known (version 1). `upload` is the id of a multipart upload that the
    request began. `header_names` are the names of headers with underscores, by their variable.
    """

    environ: dict[str, str]
    body: bytes = b""
    seed: int = 0
    status: int = 0
    upload: str | None = None
    header_names: dict[str, str] = {}


class _FirstLine(msgspec.Struct):
    version: int | None = None
    environ: object = None
    seed: int = 0


class S3Write(msgspec.Struct, frozen=True):
    """A request to S3 for a bucket, or for an object if `key` is not empty.

    Names are as WSGI has them: UTF-8 bytes decoded as Latin-1. `parameters` are the names of the
    query parameters, without those of the signature, in lower case. `source` is the bucket and the
    key that a copy reads.
    """

    method: str
    bucket: str
    key: str
    parameters: frozenset[str]
    source: tuple[str, str] | None


def is_mutating(environ: Mapping[str, object], body: bytes) -> bool:
    """Return whether a request may change something that the log has to restore."""
    target = str(environ.get("HTTP_X_AMZ_TARGET", ""))
    if target.startswith(STEP_FUNCTIONS_PREFIX):
        return target.removeprefix(STEP_FUNCTIONS_PREFIX) in RECORDED_STEP_FUNCTIONS_OPERATIONS
    return (
        environ["REQUEST_METHOD"] not in READ_METHODS
        and not READ_ACTION.match(body)
        and not READ_TARGET.match(target)
    )


def filter_environ(environ: Mapping[str, object]) -> dict[str, str]:
    """Return the variables of a WSGI environment that the log keeps."""
    return {
        name: str(value)
        for name, value in environ.items()
        if (name in KEPT_VARIABLES or name.startswith("HTTP_")) and name not in DROPPED_HEADERS
    }


def decode_line(content: bytes, file: Path) -> LoggedRequest:
    """Return the request of a line. Raises BadDocument."""
    request = decode(content, LoggedRequest, file=file)
    # Nothing else of a file that somebody may have edited gets into moto's environment.
    request.environ = filter_environ(request.environ)
    return request


def is_version_1(lines: Sequence[bytes], file: Path) -> bool:
    """Return whether a log with these first two lines has version 1.

    Raises BadDocument for a version that this cloudft can't read.
    """
    for line in lines:
        try:
            first = decode(line, _FirstLine, file=file)
        except BadDocument:  # damaged: the next line says which version it is
            continue
        if first.environ is None:
            decode(line, _FirstLine, file=file, versions=(VERSION,))
        return first.environ is not None and first.seed == 0
    return False


def ec2_network_key(environ: Mapping[str, object]) -> str | None:
    """Return `ACCESS_KEY/REGION` of a request to EC2; None for another service's request.

    moto creates the default network of an account and a Region at the first request to EC2 there,
    even if that only reads, with ids from that request's seed.
    """
    authorization = str(environ.get("HTTP_AUTHORIZATION", ""))
    scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/ec2/", authorization)
    return "/".join(scope.groups()) if scope else None


def signing_name(environ: Mapping[str, object]) -> str:
    """Return the signing name of a request; empty for S3's presigned and anonymous requests."""
    scope = CREDENTIAL_SCOPE.search(str(environ.get("HTTP_AUTHORIZATION", "")))
    return scope["service"] if scope else ""


def parse_s3_write(environ: dict[str, str]) -> S3Write | None:
    """Return what a request does to S3; None for another service's request.

    Raises ValueError if it may write to a bucket that moto finds by rules that are not these.
    """
    service, path = signing_name(environ), environ.get("PATH_INFO", "")
    host = re.sub(r":\d*$", "", environ.get("HTTP_HOST", "localhost"))
    if service.startswith("s3") and service != "s3":
        raise ValueError(f"{service} may write to any bucket")
    if service not in ("", "s3") or path.startswith(S3_CONTROL_PREFIX):
        return None
    if not service and path == "/" and _is_path_style(host):
        return None  # an unsigned action of the query protocol
    # http://localhost/BUCKET/KEY, or http://BUCKET.s3.localhost/KEY.
    if _is_path_style(host):
        bucket, _, key = path.lstrip("/").partition("/")
    elif host.endswith(".localhost"):
        bucket, key = host.split(".")[0], path.removeprefix("/")
    else:
        raise ValueError(f"a request to {host} may write to any bucket")
    source = _copy_source(environ)
    for name in (bucket, source[0] if source else bucket):
        if not BUCKET_NAME.fullmatch(name):  # the ARN of an access point, for example
            raise ValueError(f"{name[:80]!r} is not a bucket's name")
    return S3Write(
        environ["REQUEST_METHOD"], bucket, key, frozenset(_query_parameters(environ)), source
    )


def _is_path_style(host: str) -> bool:
    """Return whether a host has no bucket in front of it: an IP address, or a name without dots."""
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return "." not in host
    return True


def _query_parameters(environ: dict[str, str]) -> Iterator[str]:
    for name, _ in parse_qsl(environ.get("QUERY_STRING", ""), keep_blank_values=True):
        if not SIGNATURE_PARAMETER.match(name):
            yield name.lower()


def _copy_source(environ: dict[str, str]) -> tuple[str, str] | None:
    """Return the bucket and the key that a request copies; None if it copies nothing."""
    header = environ.get("HTTP_X_AMZ_COPY_SOURCE")
    if header is None:
        return None
    # Without `?versionId=...`, and spelled as WSGI spells the keys of paths.
    path = unquote(header.partition("?")[0]).encode().decode("latin-1")
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key
