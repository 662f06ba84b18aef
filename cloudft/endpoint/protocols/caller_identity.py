"""Identify the service that a request calls, and its caller: signed, with an API key, or neither.

Sources: IAM user guide, "Create a signed AWS API request"; Bedrock user guide, "Use an Amazon
Bedrock API key" (an `Authorization: Bearer` header); moto 5.2.5, `moto_server/werkzeug_app.py`
(it takes every request without a signature that it can read for one to S3).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from cloudft.endpoint.protocols.query import parse_action

CREDENTIAL_SCOPE = re.compile(
    r"Credential=[^/]+/\d{8}/(?P<region>[^/]+)/(?P<service>[^/]+)/aws4_request"
)
BEARER_PREFIX = "Bearer "
OPENAI_PREFIX = "/v1/"
"""Beginning of the paths of Bedrock's OpenAI-compatible API."""
VERSION_2_PREFIX = "AWS "
"""Beginning of signatures of version 2, which only S3 still takes (S3 user guide)."""
PRESIGNED_PARAMETERS = ({"x-amz-signature"}, {"awsaccesskeyid", "signature"})
"""Query parameters, in lower case, of presigned URLs: signature version 4, then version 2."""
OBJECT_PATH = re.compile(r"/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+", re.DOTALL)
"""A path-style path of an object (S3 user guide, "Bucket naming rules")."""
UNSIGNED_TARGETS = ("AWSCognitoIdentityService", "AWSCognitoIdentityProviderService")
"""Beginnings of `X-Amz-Target` that AWS accepts without a signature."""
UNSIGNED_ACTIONS = ("AssumeRoleWithSAML", "AssumeRoleWithWebIdentity")
"""Actions of the query protocol that AWS accepts without a signature."""


@dataclass(frozen=True)
class Caller:
    """The caller of a request, as its headers and query claim it; no signature is verified here.

    `service` is the signing name of the service that is called. It is empty for presigned and
    anonymous requests, which only S3 takes, and for a header `Authorization` that names none.
    `region` is the Region of the signature; empty where there is none, as in an API key.
    `is_unreadable` says that this header is in no form that AWS knows.
    """

    service: str = ""
    is_signed: bool = False
    is_presigned: bool = False
    is_unreadable: bool = False
    region: str = ""


def identify_caller(headers: Mapping[str, str], query: str, path: str = "") -> Caller:
    """Return the caller. `headers` have lower-case names; `query` is the raw query string.

    An API key names no service: `path` says whether it is Bedrock's OpenAI-compatible API.
    """
    authorization = headers.get("authorization", "")
    # Of the services here, only Bedrock has API keys.
    if authorization.startswith(BEARER_PREFIX):
        is_openai = path.startswith(OPENAI_PREFIX)
        return Caller("bedrock-mantle" if is_openai else "bedrock", is_signed=True)
    scope = CREDENTIAL_SCOPE.search(authorization)
    if scope is not None:
        return Caller(scope["service"], is_signed=True, region=scope["region"])
    # A presigned URL has its signature in the query.
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    presigned = any(needed <= names for needed in PRESIGNED_PARAMETERS)
    is_unreadable = bool(authorization) and not authorization.startswith(VERSION_2_PREFIX)
    return Caller(is_presigned=presigned, is_unreadable=is_unreadable)


def is_presigned_object(caller: Caller, path: str) -> bool:
    """Return whether a request is for an object by a presigned URL. `path` is decoded."""
    return caller.is_presigned and OBJECT_PATH.fullmatch(path) is not None


def unsigned_protocol(headers: Mapping[str, str], path: str, body: bytes) -> str | None:
    """Return the protocol, `json` or `query`, of an anonymous request that must be signed.

    None for requests to S3, whose objects may be public, and for operations that AWS accepts
    without a signature.
    """
    target = headers.get("x-amz-target")
    if target is not None:
        return None if target.startswith(UNSIGNED_TARGETS) else "json"
    # Every service of the query protocol has its one address at `/`.
    if path == "/" and (action := parse_action(body)):
        return None if action in UNSIGNED_ACTIONS else "query"
    return None
