"""Read an answer of Bedrock's ConverseStream while it is generated."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, cast

import orjson

from cloudft.aws.client import Aws
from cloudft.backends.bedrock.converse import (
    ContentBlock,
    ConverseResponse,
    converse_request,
    parse_converse_response,
)
from cloudft.inference import (
    CANCELED,
    AnswerDelta,
    AnswerEnd,
    GenerationConfig,
    Prompt,
    StreamEvent,
)

FAILURE = "the model can't be invoked"


class StreamedResponse:
    """The parts of one response. Put together they are a response of Converse.

    Members of the events: botocore's service model, ConverseStreamOutput.
    """

    def __init__(self) -> None:
        self.stop_reason, self.output_tokens = "end_turn", 0
        self._blocks: dict[int, ContentBlock] = {}
        self._inputs: dict[int, str] = {}

    def add(self, event: Mapping[str, Any]) -> tuple[str, str]:
        """Take an event of the stream; return the new text and reasoning in it."""
        if "contentBlockStart" in event:
            use = event["contentBlockStart"]["start"].get("toolUse")
            if use:
                index = event["contentBlockStart"]["contentBlockIndex"]
                call = {"toolUseId": use["toolUseId"], "name": use["name"], "input": {}}
                self._blocks[index] = cast("ContentBlock", {"toolUse": call})
        elif "contentBlockDelta" in event:
            delta = event["contentBlockDelta"]
            return self._add_delta(delta["contentBlockIndex"], delta["delta"])
        elif "messageStop" in event:
            self.stop_reason = event["messageStop"]["stopReason"]
        elif "metadata" in event:
            self.output_tokens = event["metadata"]["usage"]["outputTokens"]
        return "", ""

    def _add_delta(self, index: int, delta: Mapping[str, Any]) -> tuple[str, str]:
        if "toolUse" in delta:
            self._inputs[index] = self._inputs.get(index, "") + delta["toolUse"]["input"]
            return "", ""
        block = self._blocks.setdefault(index, {})
        if "reasoningContent" in delta:
            new = str(delta["reasoningContent"].get("text", ""))
            thought = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {})
            thought["text"] = thought.get("text", "") + new
            return "", new
        new = str(delta.get("text", ""))
        block["text"] = block.get("text", "") + new
        return new, ""

    def to_response(self) -> ConverseResponse:
        """Return what Converse would have returned."""
        for index, text in self._inputs.items():
            self._blocks[index]["toolUse"]["input"] = orjson.loads(text or "{}")
        content = [block for _, block in sorted(self._blocks.items())]
        return {
            "output": {"message": {"role": "assistant", "content": content}},
            "stopReason": self.stop_reason,
            "usage": {"outputTokens": self.output_tokens},
        }


def open_converse_stream(aws: Aws, model: str, prompt: Prompt, config: GenerationConfig) -> Any:
    """Return the event stream of a model's reply to a conversation. Raise CloudRefused."""
    request = converse_request(prompt, config, model)
    opened = aws.call(FAILURE, "bedrock-runtime", "converse_stream", modelId=model, **request)
    return opened["stream"]


def read_converse_stream(
    aws: Aws, events: Any, variant: str, canceled: threading.Event
) -> Iterator[StreamEvent]:
    """Yield a reply as it comes, until it ends or is `canceled`.

    The service counts tokens at the end only, so those of the parts are 0.
    """
    response = StreamedResponse()
    try:
        with aws.translate_errors(FAILURE, "bedrock-runtime"):
            for event in events:
                text, reasoning = response.add(event)
                if text or reasoning:
                    yield AnswerDelta(variant, text, reasoning, 0)
                if canceled.is_set():
                    break
    finally:
        events.close()
    if canceled.is_set():
        # Half of a tool call is none.
        response = _without_calls(response)
    answer = parse_converse_response(response.to_response(), 0, variant)
    yield AnswerEnd(replace(answer, finish_reason=CANCELED) if canceled.is_set() else answer)


def _without_calls(response: StreamedResponse) -> StreamedResponse:
    kept = StreamedResponse()
    kept.output_tokens = response.output_tokens
    kept._blocks = {i: block for i, block in response._blocks.items() if "toolUse" not in block}
    return kept
