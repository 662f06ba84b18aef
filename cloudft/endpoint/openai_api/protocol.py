"""Bedrock's OpenAI-compatible API on the wire: REST-JSON requests, OpenAI's responses and errors.

Requests are parsed by the service model of `cloudft/aws/service_models`. A response keeps members
that are null, as OpenAI's do. Source: OpenAI API reference, "Error codes", "Streaming".
"""

from __future__ import annotations

import orjson

from cloudft.endpoint.protocols.messages import HttpResponse, Parameters, ServiceError
from cloudft.endpoint.protocols.rest_json import RestJsonProtocol

SERVICE = "bedrock-mantle"
"""Name in boto3 and in signatures."""
CHUNKS = "chunks"
"""A member of a result: the answer is a stream of these."""
STATUSES = {"MissingAuthenticationTokenException": 401, "UnknownOperationException": 404}
"""HTTP statuses of errors that the service model has not."""
OPENAI_CODES = {
    "ThrottlingException": "rate_limit_exceeded",
    "ServiceQuotaExceededException": "insufficient_quota",
    "ResourceNotFoundException": "not_found",
}
"""`code` of an error; null for others."""


class OpenAIProtocol(RestJsonProtocol):
    """The protocol of the service `bedrock-mantle`."""

    def __init__(self) -> None:
        super().__init__(SERVICE)

    def serialize_response(self, operation: str, result: Parameters) -> HttpResponse:
        """Return a result as JSON, with nulls; a stream as server-sent events."""
        if CHUNKS in result:
            lines = [b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in result[CHUNKS]]
            content_type = ("Content-Type", "text/event-stream")
            return HttpResponse(200, (content_type,), b"".join([*lines, b"data: [DONE]\n\n"]))
        headers = (("Content-Type", "application/json"),)
        return HttpResponse(200, headers, orjson.dumps(result))

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return an error in OpenAI's form."""
        status = STATUSES.get(error.code) or super().serialize_error(error).status
        # Of OpenAI's API a used-up quota has the status of too many requests.
        status = 429 if status == 402 else status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        content = {
            "message": error.message,
            "type": kind,
            "param": None,
            "code": OPENAI_CODES.get(error.code),
        }
        headers = (("Content-Type", "application/json"),)
        return HttpResponse(status, headers, orjson.dumps({"error": content}))
