"""Parse and serialize AWS's REST-JSON protocol, as botocore's service model describes it.

An operation has an HTTP method and a URI pattern. Each member of its input comes from the path, the
query string, a header or the JSON body: the member's `location` in the model says which. Source:
smithy.io, "AWS restJson1 protocol".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols import event_stream
from cloudft.endpoint.protocols.json_shapes import (
    check_integer,
    parse_json_body,
    parse_timestamp,
    parse_value,
    serialize_value,
)
from cloudft.endpoint.protocols.messages import (
    HTTP_HEADERS,
    ConnectionDropped,
    HttpResponse,
    Json,
    OperationCall,
    Parameters,
    ResponseStream,
    ServiceError,
)
from cloudft.endpoint.protocols.service_models import OperationModel, ServiceModel, Shape


@dataclass(frozen=True)
class _RequestParts:
    """What members of an input are taken from. Header names are lower-case."""

    path: Mapping[str, str]
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    body: bytes


class RestJsonProtocol:
    """The REST-JSON protocol of one service."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model: ServiceModel = load_service_model(service)
        # By method: most requests are matched against a few patterns instead of all of them.
        self._routes: dict[str, list[tuple[re.Pattern[str], OperationModel]]] = {}
        for operation in map(self.model.operation_model, self.model.operation_names):
            routes = self._routes.setdefault(operation.http["method"], [])
            routes.append((_compile_route(operation.http["requestUri"]), operation))

    def operation_model(self, name: str) -> OperationModel:
        """Return botocore's model of an operation."""
        return self.model.operation_model(name)

    def has_route(self, method: str, raw_path: str) -> bool:
        """Return whether an operation has that method and path."""
        return any(route.fullmatch(raw_path) for route, _ in self._routes.get(method, ()))

    def parse_request(
        self, method: str, raw_path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> OperationCall | None:
        """Return the call that a request makes; None if no operation has that route.

        `raw_path` is percent-encoded; `headers` have lower-case names. Raises ServiceError
        (ValidationException) for an input that the model does not describe.
        """
        for route, operation in self._routes.get(method, ()):
            match = route.fullmatch(raw_path)
            if match:
                parts = _RequestParts(
                    {name: unquote(value) for name, value in match.groupdict().items()},
                    parse_qs(query, keep_blank_values=True),
                    headers,
                    body,
                )
                parameters = _parse_input(operation.input_shape, parts)
                return OperationCall(self.service, operation.name, parameters)
        return None

    def serialize_response(self, operation: str, result: Parameters) -> HttpResponse:
        """Return the response for a result by the API's member names."""
        model = self.operation_model(operation)
        shape, status = model.output_shape, int(model.http.get("responseCode", 200))
        if shape is not None and model.has_event_stream_output:
            return _serialize_event_stream(shape, result, status)
        payload = shape.serialization.get("payload") if shape else None
        if shape is not None and payload:
            # A payload member is the whole body: bytes, such as a model's own answer.
            return HttpResponse(status, _header_members(shape, result), result[payload])
        content = serialize_value(shape, result) if shape else {}
        headers = (("Content-Type", "application/json"),)
        return HttpResponse(status, headers, orjson.dumps(content))

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """Return the response for an error, with the HTTP status that the model gives it.

        An error that the service does not declare has status 403, as authentication errors have.
        """
        status = 403
        if error.code in self.model.shape_names:
            declared = self.model.shape_for(error.code).metadata.get("error", {})
            status = declared.get("httpStatusCode", 400)
        headers = (("Content-Type", "application/json"), ("x-amzn-errortype", error.code))
        return HttpResponse(status, headers, orjson.dumps({"message": error.message}))


def _compile_route(uri: str) -> re.Pattern[str]:
    """Return the pattern of a path such as `/custom-models/{modelIdentifier}`.

    A label matches one encoded segment, also a greedy one (`{name+}`): botocore encodes the slashes
    of an ARN as `%2F`.
    """
    path = uri.partition("?")[0]
    parts = re.split(r"\{(\w+)\+?\}", path)
    # re.split puts the labels at the odd positions.
    pattern = "".join(
        f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile(pattern)


def _parse_input(shape: Shape | None, parts: _RequestParts) -> dict[str, object]:
    if shape is None:
        return {}
    # A payload member is the whole body. Without one, the body is an object of all members that
    # have no other location.
    payload = shape.serialization.get("payload")
    content = {} if payload else parse_json_body(parts.body)
    parsed: dict[str, object] = {}
    for name, member in shape.members.items():
        if name == payload:
            parsed[name] = _parse_payload(member, parts.body, name)
            continue
        value = _parse_member(name, member, parts, content)
        if value is not None:
            parsed[name] = value
    # As in json_shapes.parse_structure: a misspelled member should not pass unnoticed.
    unknown = set(content) - {m.serialization.get("name", n) for n, m in shape.members.items()}
    if unknown:
        raise ServiceError("ValidationException", f"Unknown member {sorted(unknown)[0]}")
    return parsed


def _parse_payload(member: Shape, body: bytes, name: str) -> object:
    if member.type_name == "structure":
        return parse_value(member, parse_json_body(body), name)
    return body


def _parse_member(
    name: str, member: Shape, parts: _RequestParts, content: Mapping[str, Json]
) -> object:
    """Return the value of a member from where the model locates it; None if it is missing."""
    location, key = member.serialization.get("location"), member.serialization.get("name", name)
    if location == "uri":
        return parts.path[key]
    if location == "querystring":
        return _parse_query_value(member, parts.query[key]) if key in parts.query else None
    if location == "header":
        return parts.headers.get(key.lower())
    value = content.get(key)
    return None if value is None else parse_value(member, value, name)


def _parse_query_value(shape: Shape, values: list[str]) -> object:
    """Return the value of a query parameter. Raises ServiceError (ValidationException)."""
    text, kind = values[0], shape.type_name
    try:
        if kind == "list":
            return values
        if kind in ("integer", "long"):
            return check_integer(shape, int(text))
        if kind == "boolean":
            return {"true": True, "false": False}[text]
        if kind == "timestamp":
            return parse_timestamp(text)
    except (ValueError, KeyError):
        message = f"Value '{text[:100]}' is not of type {kind}"
        raise ServiceError("ValidationException", message) from None
    return text


def _serialize_event_stream(shape: Shape, result: Mapping[str, Any], status: int) -> HttpResponse:
    """Return a response whose body is a stream of events, each sent when it is there."""
    name, stream = next(
        (name, member)
        for name, member in shape.members.items()
        if member.serialization.get("eventstream")
    )
    # The events are the body; the other members of the result are headers.
    headers = _header_members(shape, {k: v for k, v in result.items() if k != name})
    kept = tuple(header for header in headers if header[0].lower() != "content-type")
    content_type = ("Content-Type", event_stream.CONTENT_TYPE)
    events: ResponseStream[tuple[str, Parameters]] = result[name]
    body = ResponseStream(_encode_events(stream, events), events.close)
    return HttpResponse(status, (*kept, content_type), body)


def _encode_events(stream: Shape, events: Iterable[tuple[str, Parameters]]) -> Iterator[bytes]:
    """Yield each event as a message. An error becomes the last one: the status has been sent."""
    try:
        for kind, content in events:
            yield event_stream.encode_event(kind, serialize_value(stream.members[kind], content))
    except ServiceError as error:
        yield event_stream.encode_exception(_exception_member(stream, error.code), error.message)
    except ConnectionDropped:
        raise
    except Exception as error:
        message = f"unexpected {type(error).__name__}: this is a fault of cloudft"
        yield event_stream.encode_exception("internalServerException", message)


def _exception_member(stream: Shape, code: str) -> str:
    """Return the member of a stream for an error; the model's failure for one that it has not."""
    member = code[:1].lower() + code[1:]
    return member if member in stream.members else "modelStreamErrorException"


def _header_members(shape: Shape, result: Parameters) -> tuple[tuple[str, str], ...]:
    """Return the members of a result that the model puts into headers, and its other headers."""
    described = (
        (member.serialization["name"], str(result[name]))
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header" and name in result
    )
    return (*described, *result.get(HTTP_HEADERS, {}).items())
