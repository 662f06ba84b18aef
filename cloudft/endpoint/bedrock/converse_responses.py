"""Write answers by Converse's members, whole and as the events of a stream.

Nova's own body of InvokeModel has the same members.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

import orjson

from cloudft.endpoint.bedrock.local_inference import InferenceResult
from cloudft.endpoint.protocols.messages import Response


def split_into_chunks(text: str) -> Iterator[str]:
    """Yield the text in the chunks of a stream: a word each, with the space before it."""
    yield from re.findall(r"\s*\S+|\s+$", text)


def converse_usage(result: InferenceResult) -> dict[str, int]:
    """Return Converse's `usage`."""
    return {
        "inputTokens": result.input_tokens,
        "outputTokens": result.output_tokens,
        "totalTokens": result.input_tokens + result.output_tokens,
    }


def _content_blocks(result: InferenceResult) -> list[dict[str, Any]]:
    thoughts = [{"reasoningContent": {"reasoningText": {"text": result.reasoning}}}]
    calls = [
        {"toolUse": {"toolUseId": call.id, "name": call.name, "input": call.arguments}}
        for call in result.calls
    ]
    # An answer that is a call alone has no text block; any other has one, be it empty.
    texts = [{"text": result.text}] if result.text or not calls else []
    return [*(thoughts if result.reasoning else []), *texts, *calls]


def converse_output(result: InferenceResult) -> Response:
    """Return the answer by Converse's members, without the metrics."""
    message = {"role": "assistant", "content": _content_blocks(result)}
    return {
        "output": {"message": message},
        "stopReason": result.stop_reason,
        "usage": converse_usage(result),
    }


def converse_metrics(result: InferenceResult) -> Response:
    """Return Converse's `metrics`."""
    return {"latencyMs": result.latency_ms}


def converse_stream_events(result: InferenceResult) -> Iterator[tuple[str, Response]]:
    """Yield the events of ConverseStream, each with its name."""
    yield "messageStart", {"role": "assistant"}
    for index, block in enumerate(_content_blocks(result)):
        place: Response = {"contentBlockIndex": index}
        if "toolUse" in block:
            use = block["toolUse"]
            start = {"toolUse": {"toolUseId": use["toolUseId"], "name": use["name"]}}
            yield "contentBlockStart", {**place, "start": start}
        for delta in _deltas(block):
            yield "contentBlockDelta", {**place, "delta": delta}
        yield "contentBlockStop", place
    yield "messageStop", {"stopReason": result.stop_reason}
    usage = converse_usage(result)
    yield "metadata", {"usage": usage, "metrics": converse_metrics(result)}


def _deltas(block: dict[str, Any]) -> Iterator[Mapping[str, object]]:
    if "toolUse" in block:
        yield {"toolUse": {"input": orjson.dumps(block["toolUse"]["input"]).decode()}}
    elif "reasoningContent" in block:
        text = block["reasoningContent"]["reasoningText"]["text"]
        yield from ({"reasoningContent": {"text": chunk}} for chunk in split_into_chunks(text))
    else:
        yield from ({"text": chunk} for chunk in split_into_chunks(block["text"]))
