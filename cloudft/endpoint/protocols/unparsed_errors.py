"""Serialize errors for requests that only moto parses."""

from __future__ import annotations

import uuid
from xml.sax.saxutils import escape

from cloudft.endpoint.protocols.aws_json import encode_json_error
from cloudft.endpoint.protocols.messages import HttpResponse, ServiceError
from cloudft.endpoint.protocols.query import serialize_query_error

ERROR_STATUS = {
    "ThrottlingException": 429,
    "ServiceUnavailableException": 503,
    "InternalError": 500,
    "InvalidArgument": 400,
}
"""HTTP status of errors; the others have 400 in JSON and 403 in XML."""


def serialize_json_error(error: ServiceError) -> HttpResponse:
    """Return an error of a service that speaks JSON 1.1."""
    return HttpResponse(ERROR_STATUS.get(error.code, 400), *encode_json_error(error))


def serialize_xml_error(service: str, error: ServiceError) -> HttpResponse:
    """Return an error of a service that speaks XML, in the form that botocore reads.

    S3 has its own form, without the outer `ErrorResponse`. `service` is the signing name, empty for
    anonymous and presigned requests, which only S3 takes.
    """
    status = ERROR_STATUS.get(error.code, 403)
    if service not in ("", "s3"):
        return serialize_query_error(error, status)
    identifier = str(uuid.uuid4())
    text = (
        f"<Error><Code>{error.code}</Code><Message>{escape(error.message)}</Message>"
        f"<RequestId>{identifier}</RequestId></Error>"
    )
    headers = (("Content-Type", "application/xml"), ("x-amz-request-id", identifier))
    return HttpResponse(status, headers, text.encode())
