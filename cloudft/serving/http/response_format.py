"""The JSON schema that a request's `response_format` keeps its answer to."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.serving.http.errors import invalid

ANY_OBJECT = {"type": "object"}
"""The schema of `json_object`."""
SCHEMA_KEYS = {"name", "description", "schema", "strict"}
"""Members of `json_schema`. The schema is kept whether `strict` is true or not."""


def read_response_format(value: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the schema of a `response_format`, None for text. Raise ApiError."""
    if value is None:
        return None
    kind = value.get("type")
    if kind == "text":
        _refuse_unknown(value, {"type"}, "response_format")
        return None
    if kind == "json_object":
        _refuse_unknown(value, {"type"}, "response_format")
        return ANY_OBJECT
    if kind != "json_schema":
        message = "'response_format.type' is none of text, json_object and json_schema."
        raise invalid(message, "response_format.type", "invalid_value")
    _refuse_unknown(value, {"type", "json_schema"}, "response_format")
    inner = value.get("json_schema")
    where = "response_format.json_schema"
    if not isinstance(inner, dict):
        message = f"Missing required parameter: {where!r}."
        raise invalid(message, where, "missing_required_parameter")
    _refuse_unknown(inner, SCHEMA_KEYS, where)
    schema = inner.get("schema")
    if not isinstance(schema, dict):
        message = f"Missing required parameter: '{where}.schema', a JSON schema."
        raise invalid(message, f"{where}.schema", "missing_required_parameter")
    return schema


def _refuse_unknown(value: Mapping[str, Any], known: set[str], path: str) -> None:
    unknown = sorted(value.keys() - known)
    if unknown:
        name = f"{path}.{unknown[0][:100]}"
        raise invalid(f"Unknown parameter: {name!r}.", name, "unknown_parameter")
