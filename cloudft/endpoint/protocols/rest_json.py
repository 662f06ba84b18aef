"""REST-JSON as AWS speaks it, both ways, derived from botocore's service model."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any
from urllib.parse import parse_qs, unquote

import orjson
from botocore.utils import parse_timestamp

from cloudft.aws.request_validation import load_service_model
from cloudft.endpoint.protocols import event_stream

SERVER_HEADER = "cloudft-endpoint (not AWS)"
MAX_JSON_DEPTH = 100
"""How far a body may be nested: past some hundreds, Python and orjson fail in places of their own.
"""
INTEGER_BITS = {"integer": 31, "long": 63}


class ServiceError(Exception):
    """An error that the API declares, by its name; `message` is what the caller reads."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


@dataclass(frozen=True)
class HttpResponse:
    """What goes back over HTTP."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class OperationCall:
    """One request that was understood: the operation, and its input by the API's names."""

    service: str
    operation: str
    parameters: Mapping[str, Any]


class RestJsonProtocol:
    """One service: requests in, replies out."""

    def __init__(self, service: str) -> None:
        self.service = service
        self.model = load_service_model(service)
        self._routes: dict[str, list[tuple[re.Pattern[str], Any]]] = {}
        for op in map(self.model.operation_model, self.model.operation_names):
            routes = self._routes.setdefault(op.http["method"], [])
            routes.append((_compile_route(op.http["requestUri"]), op))

    def operation_model(self, name: str) -> Any:
        """Botocore's model of the operation."""
        return self.model.operation_model(name)

    def has_route(self, method: str, raw_path: str) -> bool:
        """Return whether some operation has that method and path."""
        return any(route.fullmatch(raw_path) for route, _ in self._routes.get(method, ()))

    def parse_request(
        self, method: str, raw_path: str, query: str, headers: Mapping[str, str], body: bytes
    ) -> OperationCall | None:
        """The call that a request is; None when no operation has that route."""
        for route, op in self._routes.get(method, ()):
            found = route.fullmatch(raw_path)
            if found:
                places = (
                    {name: unquote(value) for name, value in found.groupdict().items()},
                    parse_qs(query, keep_blank_values=True),
                    headers,
                )
                return OperationCall(
                    self.service, op.name, _parse_input(op.input_shape, places, body)
                )
        return None

    def serialize_response(self, operation: str, result: Mapping[str, Any]) -> HttpResponse:
        """A result by the API's names, as HTTP."""
        op = self.operation_model(operation)
        shape, status = op.output_shape, int(op.http.get("responseCode", 200))
        if op.has_event_stream_output:
            return self._serialize_event_stream(op, result, status)
        payload = shape.serialization.get("payload") if shape else None
        if payload:
            raw = result[payload]
            return HttpResponse(status, _response_headers(shape, result), raw)
        content = serialize_value(shape, result) if shape else {}
        headers = (("Content-Type", "application/json"),)
        return HttpResponse(status, headers, orjson.dumps(content))

    def _serialize_event_stream(
        self, op: Any, result: Mapping[str, Any], status: int
    ) -> HttpResponse:
        name, stream = next(
            (name, member)
            for name, member in op.output_shape.members.items()
            if member.serialization.get("eventstream")
        )
        headers = _response_headers(op.output_shape, {k: v for k, v in result.items() if k != name})
        kept = tuple(h for h in headers if h[0].lower() != "content-type")
        events = [
            event_stream.encode_event(kind, serialize_value(stream.members[kind], content))
            for kind, content in result[name]
        ]
        return HttpResponse(
            status, (*kept, ("Content-Type", event_stream.CONTENT_TYPE)), b"".join(events)
        )

    def serialize_error(self, error: ServiceError) -> HttpResponse:
        """An error, with the HTTP status that the model gives it."""
        shape = self.model.shape_for(error.code) if error.code in self.model.shape_names else None
        status = shape.metadata.get("error", {}).get("httpStatusCode", 400) if shape else 403
        headers = (("Content-Type", "application/json"), ("x-amzn-errortype", error.code))
        return HttpResponse(status, headers, orjson.dumps({"message": error.message}))


def _compile_route(uri: str) -> re.Pattern[str]:
    path = uri.partition("?")[0]
    parts = re.split(r"\{(\w+)\+?\}", path)
    text = "".join(
        f"(?P<{part}>[^/]+)" if index % 2 else re.escape(part) for index, part in enumerate(parts)
    )
    return re.compile(text)


def _parse_input(shape: Any, places: tuple[Any, Any, Any], body: bytes) -> dict[str, Any]:
    if shape is None:
        return {}
    uri, query, headers = places
    payload = shape.serialization.get("payload")
    content = {} if payload else parse_json_body(body)
    found: dict[str, Any] = {}
    for name, member in shape.members.items():
        where = member.serialization.get("location")
        key = member.serialization.get("name", name)
        if where == "uri":
            found[name] = uri[key]
        elif where == "querystring":
            if key in query:
                found[name] = _parse_query_value(member, query[key])
        elif where == "header":
            if key.lower() in headers:
                found[name] = headers[key.lower()]
        elif name == payload:
            whole = member.type_name == "structure"
            found[name] = _parse_value(member, parse_json_body(body), name) if whole else body
        elif content.get(key) is not None:
            found[name] = _parse_value(member, content[key], name)
    unknown = set(content) - {m.serialization.get("name", n) for n, m in shape.members.items()}
    if unknown:
        raise ServiceError("ValidationException", f"Unknown member {sorted(unknown)[0]}")
    return found


def parse_json_body(body: bytes) -> dict[str, Any]:
    """The JSON object of a body. Raises ValidationException."""
    try:
        content = load_json(body) if body else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "The request body is not a JSON object")
    return content


def load_json(body: bytes) -> Any:
    """The value of a JSON text. Raises ValueError, also for one that is nested too deep."""
    content = orjson.loads(body)
    if not _is_within_depth(content, MAX_JSON_DEPTH):
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
    return content


def _is_within_depth(value: Any, depth: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value
    return not isinstance(value, (dict, list)) or (
        depth > 0 and all(_is_within_depth(item, depth - 1) for item in inner)
    )


def _parse_query_value(shape: Any, values: list[str]) -> Any:
    text = values[0]
    try:
        if shape.type_name == "list":
            return values
        if shape.type_name in ("integer", "long"):
            return _check_integer(shape, int(text))
        if shape.type_name == "boolean":
            return {"true": True, "false": False}[text]
        if shape.type_name == "timestamp":
            return _parse_timestamp(text)
    except (ValueError, KeyError):
        raise ServiceError(
            "ValidationException", f"{text[:100]!r} is no {shape.type_name}"
        ) from None
    return text


def _check_integer(shape: Any, number: int) -> int:
    if not -(1 << INTEGER_BITS[shape.type_name]) <= number < 1 << INTEGER_BITS[shape.type_name]:
        raise ValueError("the number has too many bits")
    return number


def _parse_timestamp(value: Any) -> datetime:
    """A time in UTC, of seconds since 1970 or ISO 8601; without a zone, it is UTC."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("neither a number nor text")
    try:
        found: datetime = parse_timestamp(value)
        return found.replace(tzinfo=found.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (OverflowError, OSError, RuntimeError, TypeError) as error:
        raise ValueError(str(error)) from error


PYTHON_TYPES: dict[str, Any] = {
    "string": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "float": (int, float),
    "double": (int, float),
    "list": list,
    "map": dict,
    "structure": dict,
}


def _parse_value(shape: Any, value: Any, path: str) -> Any:
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return value
    try:
        if kind == "timestamp":
            return _parse_timestamp(value)
        if kind == "blob":
            return base64.b64decode(value, validate=True)
        if kind in INTEGER_BITS and isinstance(value, int):
            _check_integer(shape, value)
    except (ValueError, TypeError):
        raise ServiceError("ValidationException", f"Value at '{path}' is not a {kind}") from None
    if not isinstance(value, PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise ServiceError("ValidationException", f"Value at '{path}' is not a {kind}")
    if kind == "list":
        return [_parse_value(shape.member, v, f"{path}.{i}") for i, v in enumerate(value)]
    if kind == "map":
        return {k: _parse_value(shape.value, v, f"{path}.{k}") for k, v in value.items()}
    if kind == "structure":
        return parse_structure(shape, value, path)
    return value


def parse_structure(shape: Any, value: dict[str, Any], path: str) -> dict[str, Any]:
    """A structure by the API's names. Raises ValidationException."""
    known = {m.serialization.get("name", n): (n, m) for n, m in shape.members.items()}
    for key in value:
        if key not in known:
            raise ServiceError("ValidationException", f"Unknown member {path}.{key}")
    return {
        known[key][0]: _parse_value(known[key][1], item, f"{path}.{key}")
        for key, item in value.items()
        if item is not None
    }


def _response_headers(shape: Any, result: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (member.serialization["name"], str(result[name]))
        for name, member in shape.members.items()
        if member.serialization.get("location") == "header" and name in result
    )


def serialize_value(shape: Any, value: Any) -> Any:
    """A value of that shape as JSON data."""
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return value
    if kind == "structure":
        return {
            member.serialization.get("name", name): serialize_value(member, value[name])
            for name, member in shape.members.items()
            if value.get(name) is not None
        }
    if kind == "list":
        return [serialize_value(shape.member, item) for item in value]
    if kind == "map":
        return {key: serialize_value(shape.value, item) for key, item in value.items()}
    if kind == "timestamp":
        return _serialize_timestamp(shape, value)
    if kind == "blob":
        return base64.b64encode(value).decode()
    return value


def _serialize_timestamp(shape: Any, value: datetime) -> str | float:
    if shape.serialization.get("timestampFormat") == "iso8601":
        utc = value.astimezone(timezone.utc)
        return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return value.timestamp()


def operation_names(wires: Iterable[RestJsonProtocol]) -> set[str]:
    """Every operation of these services."""
    return {name for wire in wires for name in wire.model.operation_names}
