"""Convert between JSON and the values of shapes: shared by the REST-JSON and JSON 1.1 protocols.

Python's side of a shape: `datetime` in UTC for a timestamp, `bytes` for a blob, `dict` by the API's
member names for a structure. JSON's side uses the members' `locationName` where the model has one.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any

import orjson
from botocore.utils import parse_timestamp as parse_botocore_timestamp

from cloudft.endpoint.protocols.messages import Json, ServiceError
from cloudft.endpoint.protocols.service_models import Shape
from cloudft.web.json_depth import MAX_JSON_DEPTH, is_within_depth

INTEGER_BITS = {"integer": 31, "long": 63}
"""Bits of a value beside its sign."""
PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
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


def parse_json_body(body: bytes) -> dict[str, Json]:
    """Return the JSON object of a body; an empty body is an empty object.

    Raises ServiceError (ValidationException) for anything else.
    """
    try:
        # An operation without input may be sent with an empty body.
        content = load_json(body) if body else {}
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "The request body is not a JSON object")
    return content


def load_json(body: bytes) -> Any:
    """Return the value of a JSON text. Raises ValueError, also if it is nested too deeply."""
    if not is_within_depth(body):
        raise ValueError(f"nested more than {MAX_JSON_DEPTH} deep")
    return orjson.loads(body)


def parse_structure(shape: Shape, value: Mapping[str, Json], path: str) -> dict[str, Any]:
    """Return a structure by the API's member names; members that are null are left out.

    `path` names the structure in errors; it is empty for a body. Raises ServiceError
    (ValidationException) for an unknown member and for a value of another type.
    """
    known = {m.serialization.get("name", n): (n, m) for n, m in shape.members.items()}
    # Stricter than most services: a test against the endpoint should find a misspelled member.
    for key in value:
        if key not in known:
            raise ServiceError("ValidationException", f"Unknown member {_join(path, key)}")
    return {
        known[key][0]: parse_value(known[key][1], item, _join(path, key))
        for key, item in value.items()
        if item is not None
    }


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def parse_value(shape: Shape, value: Json, path: str) -> object:
    """Return a JSON value as a value of the shape. Raises ServiceError (ValidationException)."""
    kind = shape.type_name
    if is_document(shape):
        return value
    wrong_type = ServiceError("ValidationException", f"Value at '{path}' is not of type {kind}")
    try:
        if kind == "timestamp":
            return parse_timestamp(value)
        if kind == "blob":
            return _parse_blob(value)
        if kind in INTEGER_BITS and isinstance(value, int):
            check_integer(shape, value)
    except (ValueError, TypeError):
        raise wrong_type from None
    # bool is a subclass of int: `true` is no number.
    if not isinstance(value, PYTHON_TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        raise wrong_type
    return _parse_items(shape, value, path)


def _parse_items(shape: Shape, value: Json, path: str) -> object:
    """Return a value whose own type is right, the values inside it parsed."""
    if isinstance(value, list):
        return [parse_value(shape.member, v, f"{path}.{i}") for i, v in enumerate(value)]
    if not isinstance(value, dict):
        return value
    if shape.type_name == "structure":
        return parse_structure(shape, value, path)
    return {key: parse_value(shape.value, item, f"{path}.{key}") for key, item in value.items()}


def is_document(shape: Shape) -> bool:
    """Return whether a shape is a document type: any JSON value, passed on as it is."""
    return bool(getattr(shape, "is_document_type", False))


def check_integer(shape: Shape, number: int) -> int:
    """Return the number. Raises ValueError if the shape's integer type can't hold it."""
    limit = 1 << INTEGER_BITS[shape.type_name]
    if not -limit <= number < limit:
        raise ValueError("the number has too many bits")
    return number


def parse_timestamp(value: Json) -> datetime:
    """Return a time in UTC, from seconds since 1970 or ISO 8601; without an offset it is UTC.

    Raises ValueError.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise ValueError("neither a number nor text")
    try:
        parsed: datetime = parse_botocore_timestamp(value)
        return parsed.replace(tzinfo=parsed.tzinfo or timezone.utc).astimezone(timezone.utc)
    except (OverflowError, OSError, RuntimeError, TypeError) as error:
        # botocore and datetime raise these for times outside their range.
        raise ValueError(str(error)) from error


def _parse_blob(value: Json) -> bytes:
    if not isinstance(value, str):
        raise TypeError("a blob is text in base64")
    return base64.b64decode(value, validate=True)


def serialize_value(shape: Shape, value: Any) -> Json:
    """Return a value of the shape as JSON data; members that are None are left out."""
    kind = shape.type_name
    if is_document(shape):
        document: Json = value
        return document
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
        # In JSON bodies the default is seconds since 1970.
        is_iso = shape.serialization.get("timestampFormat") == "iso8601"
        return format_timestamp(value) if is_iso else float(value.timestamp())
    if kind == "blob":
        return base64.b64encode(value).decode()
    scalar: Json = value
    return scalar


def format_timestamp(value: datetime) -> str:
    """Return a time as AWS writes it: ISO 8601 in UTC, with milliseconds and a `Z`."""
    utc = value.astimezone(timezone.utc)
    return utc.isoformat(timespec="milliseconds").replace("+00:00", "Z")
