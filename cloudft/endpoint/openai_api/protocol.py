"""Bedrock's OpenAI-compatible API on the wire: REST-JSON requests, OpenAI's responses and errors.

Requests are parsed by the service model of `cloudft/aws/service_models`. A response keeps members
that are null, as OpenAI's do. Source: OpenAI API reference, "Error codes", "Streaming".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import orjson

from cloudft.endpoint.protocols.messages import (
    HTTP_HEADERS,
    ConnectionDropped,
    HttpResponse,
    Parameters,
    Response,
    ResponseStream,
    ServiceError,
)
from cloudft.endpoint.protocols.rest_json import RestJsonProtocol
from cloudft.endpoint.request_context import request_id

SERVICE = "bedrock-mantle"
"""Name in boto3 and in signatures."""
CHUNKS = "chunks"
"""A member of a result: the answer is a stream of these."""
STATUSES = {
    "MissingAuthenticationTokenException": 401,
    "UnknownOperationException": 404,
    # Those of bedrock-runtime, which answers chat completions as well.
    "ModelErrorException": 424,
    "ModelNotReadyException": 429,
}
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
            chunks: ResponseStream[Response] = result[CHUNKS]
            body = ResponseStream(self._encode_chunks(chunks), chunks.close)
            return HttpResponse(200, _headers("text/event-stream"), body)
        headers = (*_headers("application/json"), *result.get(HTTP_HEADERS, {}).items())
        content = {name: value for name, value in result.items() if name != HTTP_HEADERS}
        return HttpResponse(200, headers, orjson.dumps(content))

    def _encode_chunks(self, chunks: Iterable[Response]) -> Iterator[bytes]:
        """Yield each chunk when it is there. An error becomes the last one."""
        try:
            for chunk in chunks:
                yield _encode_line(chunk)
            yield b"data: [DONE]\n\n"
        except ServiceError as error:
            yield _encode_line({"error": self._describe_error(error)[1]})
        except ConnectionDropped:
            raise
        except Exception as error:
            failure = ServiceError(
                "InternalServerException",
                f"unexpected {type(error).__name__}: this is a fault of cloudft",
            )
            yield _encode_line({"error": self._describe_error(failure)[1]})

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return an error in OpenAI's form."""
        status, content = self._describe_error(error)
        headers = _headers("application/json")
        return HttpResponse(status, headers, orjson.dumps({"error": content}))

    def _describe_error(self, error: ServiceError) -> tuple[int, Response]:
        """Return an error's HTTP status, and OpenAI's object for it."""
        status = STATUSES.get(error.code) or super().serialize_error(error).status
        # Of OpenAI's API a used-up quota has the status of too many requests.
        status = 429 if status == 402 else status
        kind = "server_error" if status >= 500 else "invalid_request_error"
        code = OPENAI_CODES.get(error.code)
        return status, {"message": error.message, "type": kind, "param": None, "code": code}


def _headers(content_type: str) -> tuple[tuple[str, str], ...]:
    """Return the headers of a response. OpenAI's clients read its id in a header of their own."""
    return (("Content-Type", content_type), ("x-request-id", request_id()))


def _encode_line(content: Response) -> bytes:
    """Return a server-sent event."""
    return b"data: " + orjson.dumps(content) + b"\n\n"
