"""What botocore's exceptions mean for a caller, and answers that do not come from AWS.

Loaded without botocore: classes are known by their names. A test reads `botocore.exceptions` and
fails when a class is missing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Literal

ErrorKind = Literal[
    "answer", "offline", "foreign", "unreachable", "no-credentials", "login", "settings", "fault"
]

ERROR_KINDS: Mapping[str, ErrorKind] = {
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
            *("FlexibleChecksumError", "HTTPClientError", "IncompleteReadError"),
            *("ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "WaiterError"),
        ),
        "unreachable",
    ),
    # Something else has answered in AWS's place.
    "NotAnAwsResponse": "foreign",
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
READ_PREFIXES = ("Describe", "Get", "List")
HTML_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+)?html\b",
    re.IGNORECASE | re.DOTALL,
)
"""How a web page begins. Its Content-Type tells nothing: moto answers KMS's calls as text/html."""


class NotAnAwsResponse(Exception):
    """An answer that no AWS service gives: a proxy's page, or JSON that ends too early."""


def error_kind(error: BaseException) -> ErrorKind | None:
    """Return what an exception means, by the nearest class that KINDS has; None for another's."""
    module = type(error).__module__
    if not module.startswith(("botocore", "boto3", __name__)):
        return None
    names = (ancestor.__name__ for ancestor in type(error).__mro__)
    return next((ERROR_KINDS[name] for name in names if name in ERROR_KINDS), None)


def raise_on_foreign_response(
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
            raise NotAnAwsResponse("a web page came in place of the object")
        return
    if HTML_PAGE.match(body[:4096]):
        raise NotAnAwsResponse(f"a web page came with status {response_dict['status_code']}")
    if response_dict["status_code"] >= 300:
        return
    if not body and _has_response_body(operation_model):
        raise NotAnAwsResponse("the answer is empty")
    if body and _is_json_body(operation_model):
        _raise_on_partial_json(body)
    shape = operation_model.output_shape  # without its wrapper a Query answer is a bare KeyError
    wrapper = shape.serialization.get("resultWrapper") if shape is not None else None
    if wrapper and wrapper.encode() not in body:
        raise NotAnAwsResponse(f"the answer has no {wrapper}")


def _has_response_body(operation_model: Any) -> bool:
    """Return whether an operation reads, and its answer has more than headers.

    A connection that breaks off within the headers is an empty answer for botocore.
    """
    shape = operation_model.output_shape
    if shape is None or not operation_model.name.startswith(READ_PREFIXES):
        return False
    places = (member.serialization.get("location") for member in shape.members.values())
    return any(place not in ("header", "headers", "statusCode") for place in places)


def _is_json_body(operation_model: Any) -> bool:
    """Return whether the whole body of a successful answer is JSON."""
    shape = operation_model.output_shape
    protocol = operation_model.service_model.resolved_protocol
    return bool(
        protocol in JSON_PROTOCOLS and shape is not None and "payload" not in shape.serialization
    )


def _raise_on_partial_json(body: bytes) -> None:
    import orjson

    try:
        value = orjson.loads(body)
    except ValueError:
        try:
            value = json.loads(body)  # takes NaN, which services send and orjson refuses
        except ValueError as error:
            raise NotAnAwsResponse(f"the answer is not whole JSON ({error})") from error
    if not isinstance(value, dict):
        raise NotAnAwsResponse("the answer is no JSON object")


def raise_on_incomplete_items(parsed: Mapping[str, Any], model: Any, **_: Any) -> None:
    """Raise ForeignAnswer for a list whose items lack what the service's model requires of them.

    A handler of botocore's `after-call`; botocore itself checks what is sent and not what comes.
    """
    shape = model.output_shape
    if shape is None or parsed["ResponseMetadata"].get("HTTPStatusCode", 200) >= 300:
        return
    for name, member in shape.members.items():
        if member.type_name != "list" or member.member.type_name != "structure":
            continue
        required = member.member.required_members
        for item in parsed.get(name) or ():
            missing = [one for one in required if one not in item]
            if missing:
                raise NotAnAwsResponse(f"an item of {name} has no {missing[0]}")


def call_and_parse(
    method: Callable[..., Mapping[str, Any]], parameters: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the answer of a client's method. Raise ForeignAnswer for one that can't be parsed."""
    try:
        return method(**parameters)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if error_kind(error) is None and any(_parser_frames(error.__traceback__)):
            raise NotAnAwsResponse(f"the answer has another shape ({error})") from error
        raise


def _parser_frames(traceback: TracebackType | None) -> Iterator[bool]:
    """Tell of each frame whether botocore's parsers were at work in it."""
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__") == "botocore.parsers"
        traceback = traceback.tb_next
