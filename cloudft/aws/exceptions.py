"""What botocore's exceptions mean for a caller, and answers that do not come from AWS.

Loaded without botocore: classes are known by their names. A test reads `botocore.exceptions` and
fails when a class is missing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

Kind = Literal["answer", "offline", "unreachable", "no-credentials", "login", "settings", "fault"]

KINDS: Mapping[str, Kind] = {
    # AWS has answered with an error: its code decides.
    **dict.fromkeys(("ClientError", "EventStreamError"), "answer"),
    # No connection came about, so nothing was sent.
    **dict.fromkeys(
        (
            *("ConnectionError", "ConnectTimeoutError", "EndpointConnectionError"),
            *("MetadataRetrievalError", "ProxyConnectionError", "SSLError"),
        ),
        "offline",
    ),
    # A connection broke off, or what came over it is not whole.
    **dict.fromkeys(
        (
            *("AwsChunkedWrapperError", "ChecksumError", "ConnectionClosedError"),
            *("FlexibleChecksumError", "ForeignAnswer", "HTTPClientError", "IncompleteReadError"),
            *("ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "WaiterError"),
        ),
        "unreachable",
    ),
    **dict.fromkeys(
        ("NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError"), "no-credentials"
    ),
    # Credentials that a new login brings.
    **dict.fromkeys(
        (
            *("CredentialRetrievalError", "LoginAuthorizationCodeError", "LoginError"),
            *("LoginRefreshRequired", "LoginTokenLoadError", "RefreshWithMFAUnsupportedError"),
            *("SSOError", "SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
        ),
        "login",
    ),
    # Configuration, environment or arguments: another try gives the same.
    **dict.fromkeys(
        (
            *("BaseEndpointResolverError", "BotoCoreError", "ConfigNotFound", "ConfigParseError"),
            *("CapacityNotAvailableError", "EndpointProviderError", "EndpointResolutionError"),
            *("EndpointVariantError", "InfiniteLoopConfigError", "InvalidChecksumConfigError"),
            *("InvalidConfigError", "InvalidDNSNameError", "InvalidDefaultsMode"),
            *("InvalidEndpointConfigurationError", "InvalidEndpointDiscoveryConfigurationError"),
            *("InvalidHostLabelError", "InvalidIMDSEndpointError", "InvalidIMDSEndpointModeError"),
            *("InvalidMaxRetryAttemptsError", "InvalidProxiesConfigError", "InvalidRegionError"),
            *("InvalidRetryConfigurationError", "InvalidRetryModeError", "MD5UnavailableError"),
            *("InvalidS3AddressingStyleError", "InvalidS3UsEast1RegionalEndpointConfigError"),
            *("InvalidSTSRegionalEndpointsConfigError", "LoginInsufficientPermissions"),
            *("MissingDependencyException", "NoRegionError", "ProfileNotFound"),
            *("ServiceNotInRegionError", "UnknownCredentialError", "UnknownEndpointError"),
            *("UnknownEndpointResolutionBuiltInName", "UnknownFIPSEndpointError"),
            *("UnknownRegionError", "UnknownTokenProviderError"),
            *("UnsupportedOutpostResourceError", "UnsupportedS3AccesspointConfigurationError"),
            *("UnsupportedS3ArnError", "UnsupportedS3ConfigurationError"),
            *("UnsupportedS3ControlArnError", "UnsupportedS3ControlConfigurationError"),
        ),
        "settings",
    ),
    # A call that cannot be made at all: cloudft's own mistake, or a botocore that does not fit.
    **dict.fromkeys(
        (
            *("AliasConflictParameterError", "ApiVersionNotFoundError", "DataNotFoundError"),
            *("InvalidExpressionError", "MissingParametersError", "MissingServiceIdError"),
            *("OperationNotPageableError", "PaginationError", "ParamValidationError"),
            *("RangeError", "StubAssertionError", "StubResponseError", "UnStubbedResponseError"),
            *("UndefinedModelAttributeError", "UnknownClientMethodError", "UnknownKeyError"),
            *("UnknownParameterError", "UnknownServiceError", "UnknownServiceStyle"),
            *("UnknownSignatureVersionError", "UnseekableStreamError", "ValidationError"),
            *("UnsupportedServiceProtocolsError", "UnsupportedSignatureVersionError"),
            "WaiterConfigError",
        ),
        "fault",
    ),
}
"""The kind of every exception of `botocore.exceptions`, and of the parsers' own (botocore 1.44.5).

Some are less obvious: CredentialRetrievalError is a failed `credential_process` or role, and
ResponseParserError is no BotoCoreError and is raised for XML that ends too early.
"""
JSON_PROTOCOLS = ("json", "rest-json")
READS = ("Describe", "Get", "List")
PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+)?html\b",
    re.IGNORECASE | re.DOTALL,
)
"""How a web page begins. Its Content-Type tells nothing: moto answers KMS's calls as text/html."""


class ForeignAnswer(Exception):
    """An answer that no AWS service gives: a proxy's page, or JSON that ends too early."""


def kind_of(error: BaseException) -> Kind | None:
    """Return what an exception means, by the nearest class that KINDS has; None for another's."""
    module = type(error).__module__
    if not module.startswith(("botocore", "boto3", __name__)):
        return None
    names = (ancestor.__name__ for ancestor in type(error).__mro__)
    return next((KINDS[name] for name in names if name in KINDS), None)


def refuse_foreign_answers(
    operation_model: Any, response_dict: Mapping[str, Any], **_: Any
) -> None:
    """Raise ForeignAnswer for a body that AWS did not send. A handler of botocore's `before-parse`.

    Botocore itself takes a page with status 200 for an empty answer: JSON that can't be parsed
    gives no members, and a page that is well-formed XML a list without items.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    if not isinstance(body, bytes):  # a stream: an object may be a page, and then it has an ETag
        page = "html" in str(headers.get("content-type", "")).lower()
        if page and "etag" not in headers:
            raise ForeignAnswer("a web page came in place of the object")
        return
    if PAGE.match(body[:4096]):
        raise ForeignAnswer(f"a web page came with status {response_dict['status_code']}")
    if response_dict["status_code"] >= 300:
        return
    if not body and _has_content(operation_model):
        raise ForeignAnswer("the answer is empty")
    if body and _is_json(operation_model):
        _refuse_half(body)
    shape = operation_model.output_shape  # without its wrapper a Query answer is a bare KeyError
    wrapper = shape.serialization.get("resultWrapper") if shape is not None else None
    if wrapper and wrapper.encode() not in body:
        raise ForeignAnswer(f"the answer has no {wrapper}")


def _has_content(operation_model: Any) -> bool:
    """Return whether an operation reads, and its answer has more than headers.

    A connection that breaks off within the headers is an empty answer for botocore.
    """
    shape = operation_model.output_shape
    if shape is None or not operation_model.name.startswith(READS):
        return False
    places = (member.serialization.get("location") for member in shape.members.values())
    return any(place not in ("header", "headers", "statusCode") for place in places)


def _is_json(operation_model: Any) -> bool:
    """Return whether the whole body of a successful answer is JSON."""
    shape = operation_model.output_shape
    protocol = operation_model.service_model.resolved_protocol
    return bool(
        protocol in JSON_PROTOCOLS and shape is not None and "payload" not in shape.serialization
    )


def _refuse_half(body: bytes) -> None:
    import orjson

    try:
        orjson.loads(body)
    except ValueError:
        try:
            json.loads(body)  # takes NaN, which services send and orjson refuses
        except ValueError as error:
            raise ForeignAnswer(f"the answer is not whole JSON ({error})") from error
