"""Claude's body of InvokeModel: Anthropic's Messages API.

Source: Bedrock user guide, "Anthropic Claude Messages API".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson

from cloudft.endpoint.bedrock.body_checks import BodyKeys, JsonObject, inference_config
from cloudft.endpoint.bedrock.converse_requests import (
    parse_messages,
    parse_tool_config,
    parse_top_k,
)
from cloudft.endpoint.bedrock.converse_responses import split_into_chunks
from cloudft.endpoint.bedrock.local_inference import (
    InferenceRequest,
    InferenceResult,
    unsupported_block,
)
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import new_id

KEYS = BodyKeys(
    ("anthropic_version", "max_tokens", "messages"),
    (
        *("anthropic_beta", "system", "temperature", "top_p", "top_k", "stop_sequences"),
        *("tools", "tool_choice", "metadata"),
    ),
    is_claude=True,
)
NAMES = {
    "max_tokens": "maxTokens",
    "temperature": "temperature",
    "top_p": "topP",
    "stop_sequences": "stopSequences",
}


def parse_claude(body: JsonObject, raw: bool) -> InferenceRequest:
    """Parse the body of a request."""
    KEYS.check(body)
    turns = [{"role": m["role"], "content": _blocks(m["content"])} for m in body["messages"]]
    messages = parse_messages(turns, _blocks(body.get("system") or []))
    return InferenceRequest(
        messages=messages,
        tool_config=parse_tool_config(_tool_config(body), messages),
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
    """Return the tools as Converse's `toolConfig`."""
    if not body.get("tools"):
        return None
    choice = (body.get("tool_choice") or {}).get("type", "auto")
    if choice not in ("auto", "none"):
        raise ServiceError(
            "ValidationException",
            f"tool_choice.type: this model doesn't support {choice}. Send auto or none.",
        )
    if choice == "none":
        return None
    for tool in body["tools"]:
        if tool.get("type", "custom") != "custom":  # tools that Anthropic runs itself
            raise ServiceError(
                "ValidationException", f"tools: {tool['type']} is not available here"
            )
    specs = [
        {
            "name": tool["name"],
            **({"description": tool["description"]} if "description" in tool else {}),
            "inputSchema": {"json": tool["input_schema"]},
        }
        for tool in body["tools"]
    ]
    return {"tools": [{"toolSpec": spec} for spec in specs]}


def _content(result: InferenceResult) -> list[dict[str, Any]]:
    calls = [
        {"type": "tool_use", "id": f"toolu_{call.id}", "name": call.name, "input": call.arguments}
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


def claude_chunks(result: InferenceResult) -> Iterator[Response]:
    """Yield the events of a stream in Anthropic's order."""
    whole = format_claude(result)
    usage = {"input_tokens": result.input_tokens, "output_tokens": 1}
    start: Response = {**whole, "content": [], "stop_reason": None, "stop_sequence": None}
    yield {"type": "message_start", "message": {**start, "usage": usage}}
    for index, block in enumerate(_content(result)):
        empty: Response = {"text": ""} if block["type"] == "text" else {"input": {}}
        yield {"type": "content_block_start", "index": index, "content_block": {**block, **empty}}
        for delta in _deltas(block):
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": result.stop_reason, "stop_sequence": result.stop_sequence},
        "usage": {"output_tokens": result.output_tokens},
    }
    yield {"type": "message_stop"}


def _deltas(block: dict[str, Any]) -> Iterator[Mapping[str, object]]:
    if block["type"] == "text":
        yield from ({"type": "text_delta", "text": c} for c in split_into_chunks(block["text"]))
    else:
        text = orjson.dumps(block["input"]).decode()
        yield {"type": "input_json_delta", "partial_json": text}
