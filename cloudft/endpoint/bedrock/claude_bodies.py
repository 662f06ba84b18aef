"""Claude's body of InvokeModel: Anthropic's Messages API.

Source: Bedrock user guide, "Anthropic Claude Messages API".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.endpoint.bedrock.answer_stream import (
    AnswerPart,
    AnswerStream,
    CallInput,
    CallStart,
    InferenceResult,
    ReasoningPart,
)
from cloudft.endpoint.bedrock.body_checks import BodyKeys, JsonObject, inference_config
from cloudft.endpoint.bedrock.converse_requests import (
    parse_messages,
    parse_tool_config,
    parse_top_k,
)
from cloudft.endpoint.bedrock.converse_responses import BlockNumbers
from cloudft.endpoint.bedrock.inference_request import (
    InferenceRequest,
    unsupported_block,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import new_id

KEYS = BodyKeys(
    ("anthropic_version", "max_tokens", "messages"),
    (
        *("anthropic_beta", "system", "temperature", "top_p", "top_k", "stop_sequences"),
        *("tools", "tool_choice", "metadata", "output_config"),
    ),
    is_claude=True,
)
NAMES = {
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop_sequences": "stopSequences",
}
CHOICES = " 'auto', 'any', 'tool' or 'none'"


def parse_claude(body: JsonObject, raw: bool) -> InferenceRequest:
    """Parse the body of a request."""
    KEYS.check(body)
    turns = [{"role": m["role"], "content": _blocks(m["content"])} for m in body["messages"]]
    messages = parse_messages(turns, _blocks(body.get("system") or []))
    return InferenceRequest(
        messages=messages,
        tools=parse_tool_config(_tool_config(body), messages),
        json_schema=_json_schema(body.get("output_config") or {}),
        inference_config=inference_config(body, NAMES),
        top_k=parse_top_k(body.get("top_k")),
    )


def _blocks(content: str | Sequence[JsonObject]) -> list[Mapping[str, Any]]:
    """Return Anthropic's content, a text or blocks, as blocks of Converse."""
    if isinstance(content, str):
        return [{"text": content}]
    return [_block(block) for block in content]


def _block(block: JsonObject) -> Mapping[str, Any]:
    kind = block["type"]
    if kind == "text":
        return {"text": str(block["text"])}
    if kind == "tool_use":
        return {
            "toolUse": {"toolUseId": block["id"], "name": block["name"], "input": block["input"]}
        }
    if kind == "tool_result":
        parts = _blocks(block.get("content") or "")
        return {"toolResult": {"toolUseId": block["tool_use_id"], "content": parts}}
    raise unsupported_block(str(kind))


def _tool_config(body: JsonObject) -> Mapping[str, Any] | None:
    """Return the tools and their choice as Converse's `toolConfig`."""
    choice = body.get("tool_choice") or {"type": "auto"}
    if not body.get("tools") or choice["type"] == "none":
        return None
    for tool in body["tools"]:
        if tool.get("type", "custom") != "custom":  # tools that Anthropic runs itself
            raise ServiceError(
                "ValidationException", f"tools: {tool['type']} is not available here"
            )
    choices = {"auto": {}, "any": {}, "tool": {"name": choice.get("name")}}
    if choice["type"] not in choices:
        raise ServiceError("ValidationException", "tool_choice.type: Input should be" + CHOICES)
    specs = [
        {
            "name": tool["name"],
            **{name: tool[name] for name in ("description", "strict") if name in tool},
            "inputSchema": {"json": tool["input_schema"]},
        }
        for tool in body["tools"]
    ]
    tools = [{"toolSpec": spec} for spec in specs]
    return {"tools": tools, "toolChoice": {choice["type"]: choices[choice["type"]]}}


def _json_schema(output_config: JsonObject) -> Mapping[str, Any] | None:
    """Return the schema of Anthropic's structured outputs; None where there is none."""
    unknown = [name for name in output_config if name != "format"]
    if unknown:
        words = f"output_config.{unknown[0]}: Extra inputs are not permitted"
        raise ServiceError("ValidationException", words)
    given = output_config.get("format")
    if given is None:
        return None
    if given["type"] != "json_schema":
        words = "output_config.format.type: Input should be 'json_schema'"
        raise ServiceError("ValidationException", words)
    schema = given["schema"]
    if not isinstance(schema, Mapping):
        words = "output_config.format.schema: Input should be a valid dictionary"
        raise ServiceError("ValidationException", words)
    return schema


def _content(result: InferenceResult) -> list[dict[str, Any]]:
    calls = [
        {"type": "tool_use", "id": _call_id(call.id), "name": call.name, "input": call.arguments}
        for call in result.calls
    ]
    texts = [{"type": "text", "text": result.text}] if result.text or not calls else []
    return [*texts, *calls]


def format_claude(result: InferenceResult) -> Response:
    """Return the whole answer: Anthropic's message."""
    return {
        "id": f"msg_bdrk_{new_id()}{new_id()}",
        "type": "message",
        "role": "assistant",
        "model": model_name(result.model_id),
        "content": _content(result),
        "stop_reason": result.stop_reason,
        "stop_sequence": result.stop_sequence,
        "usage": {"input_tokens": result.input_tokens, "output_tokens": result.output_tokens},
    }


def model_name(identifier: str) -> str:
    """Return Anthropic's own name of a model: without the provider, the version and the area."""
    return identifier.rpartition("/")[2].rpartition("anthropic.")[2].partition("-v1:")[0]


def claude_chunks(answer: AnswerStream) -> Iterator[Response]:
    """Yield the events of a stream in Anthropic's order, while the answer is made."""
    blocks = BlockNumbers()
    # Claude shows its reasoning only to those that ask for it, whom KEYS refuses.
    parts = (part for part in answer if not isinstance(part, ReasoningPart))
    first = next(parts, None)
    yield {"type": "message_start", "message": _message_start(answer)}
    for part in [] if first is None else itertools.chain([first], parts):
        index, is_new = blocks.place(part)
        if is_new and index:
            yield {"type": "content_block_stop", "index": index - 1}
        if is_new:
            block = _empty_block(part)
            yield {"type": "content_block_start", "index": index, "content_block": block}
        if not isinstance(part, CallStart):
            yield {"type": "content_block_delta", "index": index, "delta": _delta(part)}
    if first is None:
        block = {"type": "text", "text": ""}
        yield {"type": "content_block_start", "index": 0, "content_block": block}
    yield {"type": "content_block_stop", "index": max(0, blocks.last)}
    result = answer.result
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": result.stop_reason, "stop_sequence": result.stop_sequence},
        "usage": {"output_tokens": result.output_tokens},
    }
    yield {"type": "message_stop"}


def _message_start(answer: AnswerStream) -> Response:
    """Return the message at the beginning of a stream: all members, and no content yet."""
    empty = InferenceResult("", "", answer.input_tokens, 1, model_id=answer.model_id)
    return {**format_claude(empty), "content": [], "stop_reason": None}


def _empty_block(part: AnswerPart) -> Response:
    if isinstance(part, CallStart):
        return {"type": "tool_use", "id": _call_id(part.call_id), "name": part.name, "input": {}}
    return {"type": "text", "text": ""}


def _delta(part: AnswerPart) -> Response:
    if isinstance(part, CallInput):
        return {"type": "input_json_delta", "partial_json": part.text}
    assert not isinstance(part, CallStart)
    return {"type": "text_delta", "text": part.text}


def _call_id(call_id: str) -> str:
    return f"toolu_{call_id}"
