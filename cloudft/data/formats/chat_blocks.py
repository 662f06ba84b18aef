"""Parse the content of a message: the blocks of OpenAI's, Bedrock's, Anthropic's and Gemini's APIs.

A key whose value is null is not there: tools that write columns (Arrow, pandas) fill up each block
with the keys of all others.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Literal, cast

from cloudft.data.formats.record import (
    BadRecord,
    Block,
    JsonObject,
    Media,
    Reasoning,
    Tool,
    ToolCall,
    ToolResult,
    require_text,
)

MediaKind = Literal["image", "video", "document", "audio"]
MEDIA_KEYS: dict[str, MediaKind] = {
    "image": "image",
    "images": "image",
    "image_url": "image",
    "image_path": "image",
    "input_image": "image",
    "video": "video",
    "videos": "video",
    "video_url": "video",
    "document": "document",
    "file": "document",
    "audio": "audio",
    "audios": "audio",
    "input_audio": "audio",
    "audio_url": "audio",
    "inlineData": "image",
    "inline_data": "image",
    "fileData": "image",
    "file_data": "image",
}
"""Keys and block types that hold pictures, videos, documents and sounds."""
_TEXT_KEYS = {"type", "text", "cache_control", "citations", "annotations", "cachePoint", "index"}


def parse_content(content: object, field: str) -> tuple[Block, ...]:
    """Return a message's content, a text or a list of blocks, as blocks. Raises BadRecord."""
    if isinstance(content, str):
        return (require_text(content, field, field),)
    if isinstance(content, dict):
        return (parse_block(content, field),)
    if not isinstance(content, list):
        message = f"{field} is neither text nor a list of blocks"
        raise BadRecord("WrongType", message, "write text", field)
    if not content:
        raise BadRecord("EmptyField", f"{field} is an empty list", "give it text", field)
    return tuple(
        [
            parse_block(block, f"{field}[{index}]")
            for index, block in enumerate(content)
            if block is not None
        ]
    )


def parse_block(block: object, field: str) -> Block:
    """Return one block. Raises BadRecord."""
    if isinstance(block, str):
        return require_text(block, field, field)
    if not isinstance(block, dict):
        raise BadRecord("WrongType", f"{field} is no block", 'write {"text": ...}', field)
    keys = {key for key, value in block.items() if value is not None}
    kind = block.get("type")
    if isinstance(kind, str) and kind in _BY_TYPE and not _is_text(kind):
        return _BY_TYPE[kind](block, field)
    for key in _BY_KEY:
        if key in keys and isinstance(block[key], dict):
            return _BY_KEY[key](block, field)
    for key in (*keys, kind):
        if key in MEDIA_KEYS:
            return _parse_media(block, MEDIA_KEYS[cast(str, key)], field)
    return _parse_text_block(block, keys, kind, field)


def _parse_text_block(block: JsonObject, keys: set[str], kind: object, field: str) -> str:
    """Return the text of a block that holds text alone. Raises BadRecord for any other block."""
    unknown = sorted(keys - _TEXT_KEYS)
    if kind is not None and not _is_text(kind) and not unknown:
        unknown = [str(kind)]
    if unknown:
        what = unknown[0][:40]
        message = f"{field} is a block of type {what!r}, which no model here is trained on"
        raise BadRecord("UnsupportedContent", message, "take the record out", field)
    return _text(block.get("text"), field)


def _is_text(kind: object) -> bool:
    return kind in ("text", "input_text", "output_text")


def _parse_media(block: JsonObject, kind: MediaKind, field: str) -> Media:
    inline = block.get("inlineData") or block.get("fileData") or block.get("inline_data")
    if isinstance(inline, dict):
        mime = str(inline.get("mimeType") or inline.get("mime_type") or "")
        kind = {"video": "video", "audio": "audio", "application": "document"}.get(  # type: ignore[assignment]
            mime.partition("/")[0], kind
        )
    return Media(kind, {key: value for key, value in block.items() if value is not None})


def _parse_thinking(block: JsonObject, field: str) -> Reasoning:
    text = next((block[key] for key in ("thinking", "reasoning", "text") if block.get(key)), None)
    if isinstance(text, list):  # Mistral's: a list of text blocks
        parts = [part.get("text") if isinstance(part, dict) else part for part in text]
        text = "".join([_text(part, field) for part in parts])
    return Reasoning(_text(text, field))


def _parse_reasoning_content(block: JsonObject, field: str) -> Reasoning:
    inner = cast(JsonObject, block["reasoningContent"])
    text = inner.get("reasoningText")
    return Reasoning(_text(text.get("text") if isinstance(text, dict) else text, field))


def _text(value: object, field: str) -> str:
    if not isinstance(value, str):
        raise BadRecord("WrongType", f"{field} has no text", 'write {"text": ...}', field)
    return require_text(value, field, field)


def _parse_anthropic_call(block: JsonObject, field: str) -> ToolCall:
    return parse_call(block, field, arguments="input")


def _parse_converse_call(block: JsonObject, field: str) -> ToolCall:
    inner = cast(JsonObject, block["toolUse"])
    return parse_call({**inner, "id": inner.get("toolUseId")}, field, arguments="input")


def _parse_gemini_call(block: JsonObject, field: str) -> ToolCall:
    inner = block.get("functionCall") or block.get("function_call")
    return parse_call(cast(JsonObject, inner), field, arguments="args")


def parse_call(value: object, field: str, arguments: str = "arguments") -> ToolCall:
    """Return a tool call: its name and its arguments, an object or one as JSON text."""
    if not isinstance(value, dict) or not isinstance(value.get("name"), str) or not value["name"]:
        fix = 'write {"name": ..., "arguments": {...}}'
        raise BadRecord("WrongToolCall", f"{field} is no tool call", fix, field)
    name = value["name"]
    given = value.get(arguments)
    if isinstance(given, str):
        given = _decode_arguments(given)
    elif given is None:
        given = {}
    elif isinstance(given, dict):
        # Arrow's columns fill up an object with the keys of all other calls, null.
        given = {key: item for key, item in given.items() if item is not None}
    if not isinstance(given, dict):
        message = f"the arguments of {name[:40]!r} in {field} are no JSON object"
        fix = 'write them as an object: {"city": "Bern"}'
        raise BadRecord("WrongToolCall", message, fix, field)
    identifier = value.get("id")
    return ToolCall(identifier if isinstance(identifier, str) else "", name, given)


def _decode_arguments(text: str) -> object:
    """Return the object that a call's arguments are as JSON text, None if they are none.

    Some files have the text encoded twice; it says the same.
    """
    given: object = text
    for _ in range(2):
        if isinstance(given, str):
            try:
                given = json.loads(given) if given.strip() else {}
            except ValueError:
                return None
    return given


def _parse_anthropic_result(block: JsonObject, field: str) -> ToolResult:
    identifier = block.get("tool_use_id") or block.get("tool_call_id")
    return make_result(
        block.get("content"), field, str(identifier or ""), is_error=block.get("is_error") is True
    )


def _parse_converse_result(block: JsonObject, field: str) -> ToolResult:
    inner = cast(JsonObject, block["toolResult"])
    content = inner.get("content")
    parts = content if isinstance(content, list) else [content]
    values = [
        part["json"] if isinstance(part, dict) and part.get("json") is not None else part
        for part in parts
    ]
    is_error = inner.get("status") == "error"
    return make_result(values, field, str(inner.get("toolUseId") or ""), is_error=is_error)


def _parse_gemini_result(block: JsonObject, field: str) -> ToolResult:
    inner = cast(JsonObject, block.get("functionResponse") or block.get("function_response"))
    response = inner.get("response")
    return ToolResult(
        str(inner.get("id") or ""),
        (response if isinstance(response, (dict, str)) else json.dumps(response),),
        name=str(inner.get("name") or ""),
    )


def make_result(
    content: object, field: str, identifier: str, name: str = "", *, is_error: bool = False
) -> ToolResult:
    """Return a tool result of a text, an object, or a list of these and of text blocks."""
    parts = content if isinstance(content, list) else [content]
    values: list[str | JsonObject] = []
    for part in parts:
        if isinstance(part, dict) and isinstance(part.get("text"), str) and _is_plain_block(part):
            values.append(part["text"])
        elif isinstance(part, (str, dict)):
            values.append(part)
        elif part is None:
            values.append("")
        else:
            values.append(json.dumps(part))
    return ToolResult(identifier, tuple(values), name, is_error)


def _is_plain_block(part: Mapping[str, object]) -> bool:
    return all(key in ("type", "text") or value is None for key, value in part.items())


_BY_TYPE: dict[str, Callable[[JsonObject, str], Block]] = {
    "tool_use": _parse_anthropic_call,
    "tool_call": _parse_anthropic_call,
    "tool_result": _parse_anthropic_result,
    "thinking": _parse_thinking,
    "reasoning": _parse_thinking,
}
_BY_KEY: dict[str, Callable[[JsonObject, str], Block]] = {
    "toolUse": _parse_converse_call,
    "toolResult": _parse_converse_result,
    "reasoningContent": _parse_reasoning_content,
    "functionCall": _parse_gemini_call,
    "function_call": _parse_gemini_call,
    "functionResponse": _parse_gemini_result,
    "function_response": _parse_gemini_result,
}


def is_result_block(block: JsonObject) -> bool:
    """Return whether a block holds a tool's result, in the form of an API."""
    if block.get("type") == "tool_result":
        return True
    keys = ("toolResult", "functionResponse", "function_response")
    return any(isinstance(block.get(key), dict) for key in keys)


def parse_tools(value: object, field: str) -> tuple[Tool, ...]:
    """Return the tools that a record lists: of OpenAI, Anthropic, Converse or plain functions.

    A list as JSON text, as tables hold it, counts as the list. Raises BadRecord.
    """
    if isinstance(value, str):
        if not value.strip():
            return ()
        try:
            value = json.loads(value)
        except ValueError as error:
            fix = 'write a list: [{"name": ..., "description": ..., "parameters": {...}}]'
            raise BadRecord("WrongToolCall", f"{field!r} is no JSON", fix, field) from error
    if isinstance(value, dict) and isinstance(value.get("tools"), list):
        value = value["tools"]
    if value is None or value in ([], {}):
        return ()
    tools = value if isinstance(value, list) else [value]
    return tuple([_parse_tool(tool, field) for entry in tools for tool in _declared(entry)])


def _declared(entry: object) -> list[object]:
    """Return the tools of an entry: several for Gemini's `functionDeclarations`."""
    for key in ("functionDeclarations", "function_declarations"):
        if isinstance(entry, dict) and isinstance(entry.get(key), list):
            return [_with_lower_types(tool) for tool in entry[key]]
    return [entry]


def _with_lower_types(value: object) -> object:
    """Return Gemini's schema with the type names of JSON Schema: OBJECT is object."""
    if isinstance(value, dict):
        return {
            key: inner.lower()
            if key == "type" and isinstance(inner, str)
            else _with_lower_types(inner)
            for key, inner in value.items()
        }
    return [_with_lower_types(inner) for inner in value] if isinstance(value, list) else value


def _parse_tool(tool: object, field: str) -> Tool:
    inner = tool
    for key in ("toolSpec", "function"):
        if isinstance(inner, dict) and isinstance(inner.get(key), dict):
            inner = inner[key]
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        fix = 'write {"name": ..., "description": ..., "parameters": {...}}'
        raise BadRecord("WrongToolCall", f"{field!r} has an entry that is no tool", fix, field)
    schema: JsonObject = next(
        (
            inner[key]
            for key in ("parameters", "input_schema", "inputSchema", "arguments")
            if isinstance(inner.get(key), dict)
        ),
        {"type": "object", "properties": {}},
    )
    wrapped = schema.get("json")  # Converse's inputSchema
    schema = wrapped if isinstance(wrapped, dict) else schema
    return Tool(inner["name"], str(inner.get("description") or ""), _drop_nulls(schema))


def _drop_nulls(value: JsonObject) -> JsonObject:
    """Return a JSON Schema without the keys that are null, at any depth.

    `default: null` and `enum: [..., null]` say something: lists are kept as they are.
    """
    return {
        key: _drop_nulls(inner) if isinstance(inner, dict) else inner
        for key, inner in value.items()
        if inner is not None or key == "default"
    }
