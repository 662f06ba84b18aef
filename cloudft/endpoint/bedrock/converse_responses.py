"""Write answers by Converse's members, whole and as the events of a stream.

Nova's own body of InvokeModel has the same members.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from cloudft.endpoint.bedrock.answer_stream import (
    AnswerPart,
    AnswerStream,
    CallInput,
    CallStart,
    InferenceResult,
    ReasoningPart,
)
from cloudft.endpoint.protocols.messages import Response


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


def converse_stream_events(answer: AnswerStream) -> Iterator[tuple[str, Response]]:
    """Yield the events of ConverseStream, each with its name, while the answer is made."""
    yield "messageStart", {"role": "assistant"}
    blocks = BlockNumbers()
    for part in answer:
        index, is_new = blocks.place(part)
        if is_new and index:
            yield "contentBlockStop", {"contentBlockIndex": index - 1}
        place: Response = {"contentBlockIndex": index}
        if isinstance(part, CallStart):
            start = {"toolUse": {"toolUseId": part.call_id, "name": part.name}}
            yield "contentBlockStart", {**place, "start": start}
        else:
            yield "contentBlockDelta", {**place, "delta": _delta(part)}
    # An answer without any part is an empty text.
    yield "contentBlockStop", {"contentBlockIndex": max(0, blocks.last)}
    result = answer.result
    yield "messageStop", {"stopReason": result.stop_reason}
    yield "metadata", {"usage": converse_usage(result), "metrics": converse_metrics(result)}


def _delta(part: AnswerPart) -> Mapping[str, object]:
    if isinstance(part, CallInput):
        return {"toolUse": {"input": part.text}}
    if isinstance(part, ReasoningPart):
        return {"reasoningContent": {"text": part.text}}
    assert not isinstance(part, CallStart)
    return {"text": part.text}


class BlockNumbers:
    """Numbers the content blocks that the parts of an answer belong to, from 0."""

    def __init__(self) -> None:
        self.last = -1
        self._kind: type[AnswerPart] | None = None

    def place(self, part: AnswerPart) -> tuple[int, bool]:
        """Return the number of the part's block, and whether the part begins it."""
        kind = CallInput if isinstance(part, CallStart) else type(part)
        is_new = isinstance(part, CallStart) or kind is not self._kind
        self._kind = kind
        self.last += is_new
        return self.last, is_new
