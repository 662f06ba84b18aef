"""Classify botocore's exceptions, and refuse responses that do not come from AWS.

This module does not import botocore: it knows exception classes by their names. A test reads
`botocore.exceptions` and fails when a class is missing here.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from botocore.model import OperationModel

ErrorKind = Literal[
    "answer", "offline", "foreign", "unreachable", "no-credentials", "login", "settings", "fault"
]

ERROR_KINDS: Mapping[str, ErrorKind] = {
    # AWS responded with an error: its code decides.
    **dict.fromkeys(("ClientError", "EventStreamError"), "answer"),
    # No connection was made, so nothing was sent.
    **dict.fromkeys(
        (
            *("ConnectionError", "ConnectTimeoutError", "EndpointConnectionError"),
            *("MetadataRetrievalError", "ProxyConnectionError", "SSLError"),
        ),
        "offline",
    ),
    # A connection broke, or the response is incomplete.
    **dict.fromkeys(
        (
            *("AwsChunkedWrapperError", "ChecksumError", "ConnectionClosedError"),
            *("FlexibleChecksumError", "HTTPClientError", "IncompleteReadError"),
            *("ReadTimeoutError", "ResponseParserError", "ResponseStreamingError", "WaiterError"),
        ),
        "unreachable",
    ),
    # Something else than AWS responded.
    "NotAnAwsResponse": "foreign",
    **dict.fromkeys(
        ("NoAuthTokenError", "NoCredentialsError", "PartialCredentialsError"), "no-credentials"
    ),
    # Credentials that need a new login.
    **dict.fromkeys(
        (
            *("CredentialRetrievalError", "LoginAuthorizationCodeError", "LoginError"),
            *("LoginRefreshRequired", "LoginTokenLoadError", "RefreshWithMFAUnsupportedError"),
            *("SSOError", "SSOTokenLoadError", "TokenRetrievalError", "UnauthorizedSSOTokenError"),
        ),
        "login",
    ),
    # Configuration, environment or arguments: a retry fails the same way.
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
    # A call that cannot be made at all: a bug in cloudft, or an incompatible botocore.
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
"""Kind of every exception in `botocore.exceptions`, and of the parsers' own (botocore 1.44.5).

Some are less obvious: CredentialRetrievalError is a failed `credential_process` or role, and
ResponseParserError, raised for truncated XML, is not a BotoCoreError.
"""
JSON_PROTOCOLS = ("json", "rest-json")
READ_PREFIXES = ("Describe", "Get", "List")
HTML_PAGE = re.compile(
    rb"(\xef\xbb\xbf)?\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype\s+)?html\b",
    re.IGNORECASE | re.DOTALL,
)
"""Beginning of a web page. Content-Type is no evidence: moto sends KMS's responses as text/html."""


Response = Mapping[str, Any]
"""A response as botocore parses it: a dict in the shape of its service model, which has no static
types. Responses that cross modules have a TypedDict (backends/bedrock/api_shapes.py)."""


class NotAnAwsResponse(Exception):
    """A response that no AWS service sends: a proxy's page, or truncated JSON."""


def error_kind(error: BaseException) -> ErrorKind | None:
    """Return the kind of a botocore exception, by its nearest class in ERROR_KINDS.

    None for exceptions of other packages.
    """
    module = type(error).__module__
    if not module.startswith(("botocore", "boto3", __name__)):
        return None
    names = (ancestor.__name__ for ancestor in type(error).__mro__)
    return next((ERROR_KINDS[name] for name in names if name in ERROR_KINDS), None)


def raise_on_foreign_response(
    operation_model: OperationModel, response_dict: Response, **_: object
) -> None:
    """Raise NotAnAwsResponse for a body that AWS did not send. Handles botocore's `before-parse`.

    Botocore parses a web page with status 200 as an empty response: JSON that can't be parsed has
    no members, and a page that is well-formed XML is a list without items.
    """
    body, headers = response_dict["body"], response_dict["headers"]
    if not isinstance(body, bytes):
        # A streamed object may itself be a web page; S3 sends it with an ETag, a proxy does not.
        is_page = "html" in str(headers.get("content-type", "")).lower()
        if is_page and "etag" not in headers:
            raise NotAnAwsResponse("a web page came in place of the object")
        return
    if HTML_PAGE.match(body[:4096]):
        raise NotAnAwsResponse(f"a web page came with status {response_dict['status_code']}")
    if response_dict["status_code"] >= 300:
        return
    if not body and _has_response_body(operation_model):
        raise NotAnAwsResponse("the response is empty")
    if body and _is_json_body(operation_model):
        _raise_on_partial_json(body)
    # Without its wrapper element, botocore fails on a Query response with a bare KeyError.
    shape = operation_model.output_shape
    wrapper = shape.serialization.get("resultWrapper") if shape is not None else None
    if wrapper and wrapper.encode() not in body:
        raise NotAnAwsResponse(f"the response has no {wrapper}")


def _has_response_body(operation_model: OperationModel) -> bool:
    """Return whether an operation reads, and its response has more than headers.

    For botocore, a connection that breaks within the headers is an empty response.
    """
    shape = operation_model.output_shape
    if shape is None or not operation_model.name.startswith(READ_PREFIXES):
        return False
    locations = (member.serialization.get("location") for member in shape.members.values())
    return any(location not in ("header", "headers", "statusCode") for location in locations)


def _is_json_body(operation_model: OperationModel) -> bool:
    """Return whether the whole body of a successful response is JSON."""
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
            value = json.loads(body)  # accepts NaN, which services send and orjson refuses
        except ValueError as error:
            raise NotAnAwsResponse(f"the response is not complete JSON ({error})") from error
    if not isinstance(value, dict):
        raise NotAnAwsResponse("the response is not a JSON object")


def raise_on_incomplete_items(parsed: Response, model: OperationModel, **_: object) -> None:
    """Raise NotAnAwsResponse for a list whose items lack members that the service model requires.

    Handles botocore's `after-call`. Botocore itself validates requests, not responses.
    """
    shape = model.output_shape
    if shape is None or parsed["ResponseMetadata"].get("HTTPStatusCode", 200) >= 300:
        return
    for name, member in shape.members.items():
        if member.type_name != "list" or member.member.type_name != "structure":
            continue
        required = member.member.required_members
        for item in parsed.get(name) or ():
            missing = [key for key in required if key not in item]
            if missing:
                raise NotAnAwsResponse(f"an item of {name} has no {missing[0]}")


def call_and_parse(method: Callable[..., Response], parameters: Mapping[str, object]) -> Response:
    """Return the response of a client's method.

    Raise NotAnAwsResponse for one that botocore's parsers fail on: they raise plain TypeErrors and
    KeyErrors, which differ from errors in cloudft by the frames that they passed through.
    """
    try:
        return method(**parameters)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        if error_kind(error) is None and any(_parser_frames(error.__traceback__)):
            raise NotAnAwsResponse(f"the response has another shape ({error})") from error
        raise


def _parser_frames(traceback: TracebackType | None) -> Iterator[bool]:
    """Yield for each frame whether it belongs to botocore's parsers."""
    while traceback is not None:
        yield traceback.tb_frame.f_globals.get("__name__") == "botocore.parsers"
        traceback = traceback.tb_next
