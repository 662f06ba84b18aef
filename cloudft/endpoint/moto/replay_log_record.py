"""One line of the journal: a request that moto took, and what is needed to give it to moto again.

The file is JSON Lines. The first line is `{"version": 2}`; a journal without it is of version 1:
its requests were written down before moto took them, and the number of a line is its seed.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
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
"""What is kept of a request beside its headers."""
DROPPED_HEADERS = {"HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH", "HTTP_TRANSFER_ENCODING"}
"""Headers that are not: what the first two compare with may be gone, and the body is whole."""
BUCKET_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
S3_CONTROL_PREFIX = "/v20180820/"
"""How paths of S3's control plane begin: it has the signing name of S3."""
SIGNATURE_PARAMETER = re.compile(r"x-amz-|x-id$|awsaccesskeyid$|signature$|expires$", re.IGNORECASE)


class LoggedRequest(msgspec.Struct, omit_defaults=True):
    """A request.

    `seed` numbers the chance that moto had; `status` is moto's answer, 0 where that is not known
    (version 1); `upload` is the id that a multipart upload got.
    """

    environ: dict[str, str]
    body: bytes = b""
    seed: int = 0
    status: int = 0
    upload: str | None = None


class _FirstLine(msgspec.Struct):
    version: int | None = None
    environ: Any = None
    seed: int = 0


class S3Write(msgspec.Struct, frozen=True):
    """A request to S3 for a bucket, or with `key` for an object, as WSGI spells it (Latin-1).

    `parameters` are those of the query that are no signature, in lower case; `source` is the bucket
    and key of what is copied.
    """

    method: str
    bucket: str
    key: str
    parameters: frozenset[str]
    source: tuple[str, str] | None


def filter_environ(environ: dict[str, Any]) -> dict[str, str]:
    """Return what the journal keeps of a WSGI environment."""
    return {
        name: str(value)
        for name, value in environ.items()
        if (name in KEPT_VARIABLES or name.startswith("HTTP_")) and name not in DROPPED_HEADERS
    }


def decode_line(content: bytes, file: Path) -> LoggedRequest:
    """Decode a line. Raise BadDocument; nothing but the parts of a request is taken from it."""
    line = decode(content, LoggedRequest, file=file)
    line.environ = filter_environ(line.environ)
    return line


def is_version_1(lines: Sequence[bytes], file: Path) -> bool:
    """Return whether a journal with these first two lines is of version 1.

    Raise BadDocument for one of a version that this cloudft can't read.
    """
    for line in lines:
        try:
            found = decode(line, _FirstLine, file=file)
        except BadDocument:  # damaged: the next line tells
            continue
        if found.environ is None:
            decode(line, _FirstLine, file=file, versions=(VERSION,))
        return found.environ is not None and found.seed == 0
    return False


def ec2_network_key(environ: Mapping[str, Any]) -> str | None:
    """Return whose network a request to EC2 meets, and where; None for another service's.

    moto makes a default network at the first request, of the chance that this request has.
    """
    scope = re.search(r"Credential=([^/]+)/\d+/([^/]+)/ec2/", environ.get("HTTP_AUTHORIZATION", ""))
    return "/".join(scope.groups()) if scope else None


def signing_name(environ: Mapping[str, Any]) -> str:
    """Return the signing name of a request; empty where it carries none, as S3's presigned do."""
    scope = CREDENTIAL_SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    return scope["service"] if scope else ""


def parse_s3_write(environ: dict[str, str]) -> S3Write | None:
    """Return a request as one to S3; None for another service's.

    Raise ValueError where the bucket can't be told as moto tells it.
    """
    service, path = signing_name(environ), environ.get("PATH_INFO", "")
    host = re.sub(r":\d*$", "", environ.get("HTTP_HOST", "localhost"))
    if service.startswith("s3") and service != "s3":
        raise ValueError(f"what {service} writes is not known")
    if service not in ("", "s3") or path.startswith(S3_CONTROL_PREFIX):
        return None
    if not service and path == "/" and _is_path_style(host):
        return None
    if _is_path_style(host):
        bucket, _, key = path.lstrip("/").partition("/")
    elif host.endswith(".localhost"):
        bucket, key = host.split(".")[0], path.removeprefix("/")
    else:
        raise ValueError(f"the bucket of a request to {host} is not known")
    source = _copy_source(environ)
    for name in (bucket, source[0] if source else bucket):
        if not BUCKET_NAME.fullmatch(name):  # an access point, say
            raise ValueError(f"{name[:80]!r} is no name of a bucket")
    return S3Write(
        environ["REQUEST_METHOD"], bucket, key, frozenset(_query_parameters(environ)), source
    )


def _is_path_style(host: str) -> bool:
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
    copied = environ.get("HTTP_X_AMZ_COPY_SOURCE")
    if copied is None:
        return None
    path = unquote(copied.partition("?")[0]).encode().decode("latin-1")
    bucket, _, key = path.removeprefix("/").partition("/")
    return bucket, key
