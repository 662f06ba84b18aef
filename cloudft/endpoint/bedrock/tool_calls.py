"""Tool calls that a model must make: the schema of an answer that is a call, and its reading.

Such an answer is the JSON object `{"name": TOOL, "arguments": {...}}`, whatever marks the model's
chat template has for calls.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.data.formats.record import ToolCall
from cloudft.endpoint.bedrock.answer_stream import AnswerPart, CallInput, CallStart
from cloudft.endpoint.state import new_id
from cloudft.web.json_text import load_json_text

Schema = Mapping[str, Any]
BEFORE_ARGUMENTS = re.compile(r'\s*\{\s*"name"\s*:\s*"(?P<name>[^"]*)"\s*,\s*"arguments"\s*:\s*')
"""The beginning of an answer that is a call, up to the call's input."""
OPENING_KEYWORDS = {
    *("additionalProperties", "patternProperties", "unevaluatedProperties", "propertyNames"),
    *("$ref", "allOf", "anyOf", "oneOf", "not", "if", "dependentSchemas"),
}
"""Keywords of an object's schema that may allow members besides its `properties`."""


def new_call_id() -> str:
    """Return a new id of a tool call, in Bedrock's form."""
    return f"tooluse_{new_id()}{new_id()}"[:30]


def call_schema(tools: Sequence[tuple[str, Schema]]) -> Schema:
    """Return the schema of a call of any of the tools, each a name and its input's schema."""
    if len(tools) == 1:
        return _one_call(*tools[0], "#")
    return {"anyOf": [_one_call(*tool, f"#/anyOf/{i}") for i, tool in enumerate(tools)]}


def calls_schema(tools: Sequence[tuple[str, Schema]]) -> Schema:
    """Return the schema of a call of each of these tools in turn: one object, or a list."""
    if len(tools) == 1:
        return call_schema(tools)
    calls = [_one_call(*tool, f"#/prefixItems/{i}") for i, tool in enumerate(tools)]
    count = len(calls)
    return {
        "type": "array",
        "prefixItems": calls,
        "items": False,
        "minItems": count,
        "maxItems": count,
    }


def call_or_text_schema(tools: Sequence[tuple[str, Schema]], text: Schema) -> Schema:
    """Return the schema of an answer that is a call of one of the tools, or the text's JSON."""
    calls = [_one_call(*tool, f"#/anyOf/{i}") for i, tool in enumerate(tools)]
    return {"anyOf": [*calls, _moved(text, f"#/anyOf/{len(calls)}")]}


def _one_call(name: str, arguments: Schema, place: str) -> Schema:
    inner = _moved(_closed(arguments), f"{place}/properties/arguments")
    return {
        "type": "object",
        "properties": {"name": {"const": name}, "arguments": {"type": "object", **inner}},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


def _closed(schema: Any) -> Any:
    """Return a schema without members that it does not name, where it does not say otherwise.

    A schema without `additionalProperties` allows any, which no caller means.
    """
    if not isinstance(schema, Mapping):
        return schema
    inner = {
        "properties": lambda value: {name: _closed(one) for name, one in value.items()},
        "items": _closed,
    }
    kept = {key: inner[key](value) if key in inner else value for key, value in schema.items()}
    is_plain = "properties" in schema and not OPENING_KEYWORDS & schema.keys()
    return kept | ({"additionalProperties": False} if is_plain else {})


def _moved(value: Any, place: str) -> Any:
    """Return a schema whose references lead to where it is put in another one."""
    if isinstance(value, list):
        return [_moved(item, place) for item in value]
    if not isinstance(value, Mapping):
        return value
    return {
        key: f"{place}{item[1:]}"
        if key == "$ref" and isinstance(item, str) and item.startswith("#")
        else _moved(item, place)
        for key, item in value.items()
    }


def parse_calls(text: str, names: Sequence[str]) -> tuple[ToolCall, ...]:
    """Return the calls that an answer's JSON is; none if it is something else, or not complete."""
    try:
        value = load_json_text(text)
    except ValueError:
        return ()
    values = value if isinstance(value, list) else [value]
    if not all(
        isinstance(one, dict)
        and one.keys() == {"name", "arguments"}
        and one["name"] in names
        and isinstance(one["arguments"], dict)
        for one in values
    ):
        return ()
    return tuple(ToolCall(new_call_id(), one["name"], one["arguments"]) for one in values)


def call_parts(calls: Sequence[ToolCall]) -> Iterator[AnswerPart]:
    """Yield the parts of calls that are complete."""
    for call in calls:
        yield CallStart(call.id, call.name)
        yield CallInput(json.dumps(call.arguments, ensure_ascii=False))


class CallReader:
    """Reads the call that an answer is while its text comes, so that its input can be streamed."""

    def __init__(self) -> None:
        self.call_id = new_call_id()
        self.text = ""
        self._sent: int | None = None

    def feed(self, text: str) -> Iterator[AnswerPart]:
        """Yield what the next piece of text completes."""
        self.text += text
        if self._sent is None:
            start = BEFORE_ARGUMENTS.match(self.text)
            if start is None:
                return
            self._sent = start.end()
            yield CallStart(self.call_id, start["name"])
        # The last brace is that of the call, not of its input: it is held back.
        settled = self.text.rstrip()
        end = len(settled) - 1 if settled.endswith("}") else len(settled)
        if end > self._sent:
            yield CallInput(self.text[self._sent : end])
            self._sent = end
