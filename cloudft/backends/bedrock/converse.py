"""Convert prompts to requests of Bedrock's Converse, and its responses to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from cloudft.data.formats.record import ToolCall, join_answer
from cloudft.inference import FILTERED, Answer, GenerationConfig, Prompt
from cloudft.inference import Message as PromptMessage

FINISH_REASONS = {
    "max_tokens": "length",
    "content_filtered": FILTERED,
    "guardrail_intervened": FILTERED,
}
"""Finish reason by Converse's stopReason; `stop` for all others."""


class _ReasoningText(TypedDict, total=False):
    text: str


class _ReasoningContent(TypedDict, total=False):
    reasoningText: _ReasoningText


class _ToolUse(TypedDict):
    toolUseId: str
    name: str
    input: dict[str, object]


class ContentBlock(TypedDict, total=False):
    """A block of content: text, reasoning or a tool call."""

    text: str
    reasoningContent: _ReasoningContent
    toolUse: _ToolUse


class Message(TypedDict):
    """A turn of a conversation."""

    role: str
    content: list[ContentBlock]


class _ConverseRequest(TypedDict):
    messages: list[Message]
    inferenceConfig: dict[str, int | float]


class ConverseRequest(_ConverseRequest, total=False):
    """The members of a Converse request beside the model."""

    system: list[ContentBlock]
    toolConfig: Mapping[str, Any]


class _Output(TypedDict):
    message: Message


class _Usage(TypedDict):
    outputTokens: int


class ConverseResponse(TypedDict):
    """A response of Converse, as far as it is read."""

    output: _Output
    stopReason: str
    usage: _Usage


def converse_request(prompt: Prompt, config: GenerationConfig, model: str) -> ConverseRequest:
    """Return the request for a conversation. `model` is its id or ARN, which is no part of it."""
    request: ConverseRequest = {
        "messages": [
            {"role": message["role"], "content": _content_blocks(message)}
            for message in prompt.messages
            if message["role"] != "system"
        ],
        "inferenceConfig": {
            "maxTokens": config.max_new_tokens,
            "temperature": config.temperature,
        },
    }
    if _needs_top_p(config, model):
        request["inferenceConfig"]["topP"] = config.top_p
    system = _system_blocks(prompt.messages)
    if system:
        request["system"] = system
    if prompt.tool_config:
        request["toolConfig"] = prompt.tool_config
    return request


def _needs_top_p(config: GenerationConfig, model: str) -> bool:
    """Return whether topP is sent: not where it has no effect.

    Claude refuses it beside a temperature from version 4.5 on ("`temperature` and `top_p` cannot
    both be specified for this model", aws-samples/bedrock-access-gateway, issue 191, 2025-10).
    Other families have a default below 1, so they get the 1.
    """
    if not config.temperature:
        return False
    return config.top_p < 1 or "anthropic." not in model


def _content_blocks(message: PromptMessage) -> list[ContentBlock]:
    content = message["content"]
    return [{"text": content}] if isinstance(content, str) else content


def _system_blocks(messages: Sequence[PromptMessage]) -> list[ContentBlock]:
    return [{"text": message["content"]} for message in messages if message["role"] == "system"]


def parse_converse_response(response: ConverseResponse, index: int, variant: str) -> Answer:
    """Return the answer to prompt number `index` in a response of Converse."""
    content = response["output"]["message"]["content"]
    text = "".join(block.get("text", "") for block in content)
    uses = [block["toolUse"] for block in content if "toolUse" in block]
    calls = [ToolCall(use["toolUseId"], use["name"], use["input"]) for use in uses]
    thoughts = [
        block["reasoningContent"].get("reasoningText", {}).get("text", "")
        for block in content
        if "reasoningContent" in block
    ]
    finish_reason = FINISH_REASONS.get(response["stopReason"], "stop")
    tokens = response["usage"]["outputTokens"]
    return Answer(
        index, variant, join_answer(text, calls), tokens, finish_reason, "\n".join(thoughts)
    )
