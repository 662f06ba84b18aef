"""Which service a request is for, and who calls it: a signature, a Bedrock API key, or nobody.

Sources: IAM user guide, "Create a signed AWS API request"; Bedrock user guide, "Use an Amazon
Bedrock API key" (an `Authorization: Bearer` header); moto 5.2.5, `moto_server/werkzeug_app.py`
(what it takes for S3: every request that carries no signature it can read).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from cloudft.endpoint.protocols.query import parse_action

CREDENTIAL_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/[^/]+/(?P<service>[^/]+)/aws4_request")
BEARER_PREFIX = "Bearer "
PRESIGNED_PARAMETERS = ({"x-amz-signature"}, {"awsaccesskeyid", "signature"})
"""Query parameters, in lower case, of presigned addresses: signature version 4, version 2."""
OBJECT_PATH = re.compile(r"/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/.+", re.DOTALL)
"""The path of an object whose bucket is in the path (S3 user guide, "Bucket naming rules")."""
UNSIGNED_TARGETS = ("AWSCognitoIdentityService", "AWSCognitoIdentityProviderService")
UNSIGNED_ACTIONS = ("AssumeRoleWithSAML", "AssumeRoleWithWebIdentity")
"""What AWS takes without a signature, beside requests for public objects in S3."""


@dataclass(frozen=True)
class Caller:
    """Whom a request is for and how it is authenticated.

    `service` is the signing name; empty for what only S3 takes: presigned and anonymous requests.
    """

    service: str = ""
    is_signed: bool = False
    is_presigned: bool = False


def identify_caller(headers: Mapping[str, str], query: str) -> Caller:
    """Return the caller. `headers` have lower-case names; `query` is the raw query string."""
    authorization = headers.get("authorization", "")
    if authorization.startswith(BEARER_PREFIX):
        return Caller("bedrock", is_signed=True)
    scope = CREDENTIAL_SCOPE.search(authorization)
    if scope is not None:
        return Caller(scope["service"], is_signed=True)
    names = {name.lower() for name, _ in parse_qsl(query, keep_blank_values=True)}
    presigned = any(needed <= names for needed in PRESIGNED_PARAMETERS)
    return Caller(is_signed=bool(authorization), is_presigned=presigned)


def is_presigned_object(caller: Caller, path: str) -> bool:
    """Return whether a request is for an object by a presigned address."""
    return caller.is_presigned and OBJECT_PATH.fullmatch(path) is not None


def unsigned_protocol(headers: Mapping[str, str], path: str, body: bytes) -> str | None:
    """Return the protocol, `json` or `query`, of an anonymous request that is none of S3's.

    None for what may come unsigned.
    """
    target = headers.get("x-amz-target")
    if target is not None:
        return None if target.startswith(UNSIGNED_TARGETS) else "json"
    if path == "/" and (action := parse_action(body)):
        return None if action in UNSIGNED_ACTIONS else "query"
    return None
