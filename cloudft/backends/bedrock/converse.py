"""Convert prompts to requests of Bedrock's Converse, and its responses to answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypedDict

from cloudft.inference import Answer, GenerationConfig, Prompt

FINISH_REASONS = {"max_tokens": "length"}
"""Finish reason by Converse's stopReason; `stop` for all others."""


class TextBlock(TypedDict, total=False):
    """A block of content that holds text."""

    text: str


class Message(TypedDict):
    """A turn of a conversation."""

    role: str
    content: list[TextBlock]


class _ConverseRequest(TypedDict):
    messages: list[Message]
    inferenceConfig: Mapping[str, int | float]


class ConverseRequest(_ConverseRequest, total=False):
    """The members of a Converse request beside the model."""

    system: list[TextBlock]


class _Output(TypedDict):
    message: Message


class _Usage(TypedDict):
    outputTokens: int


class ConverseResponse(TypedDict):
    """A response of Converse, as far as it is read."""

    output: _Output
    stopReason: str
    usage: _Usage


def converse_request(prompt: Prompt, config: GenerationConfig) -> ConverseRequest:
    """Return the request for a conversation, without the model."""
    request: ConverseRequest = {
        "messages": [
            {"role": message["role"], "content": [{"text": message["content"]}]}
            for message in prompt.messages
            if message["role"] != "system"
        ],
        "inferenceConfig": {
            "maxTokens": config.max_new_tokens,
            "temperature": config.temperature,
            "topP": config.top_p,
        },
    }
    system = _system_blocks(prompt.messages)
    if system:
        request["system"] = system
    return request


def _system_blocks(messages: Sequence[Mapping[str, str]]) -> list[TextBlock]:
    return [{"text": message["content"]} for message in messages if message["role"] == "system"]


def parse_converse_response(response: ConverseResponse, index: int, variant: str) -> Answer:
    """Return the answer to prompt number `index` in a response of Converse."""
    content = response["output"]["message"]["content"]
    text = "".join(block.get("text", "") for block in content)
    finish_reason = FINISH_REASONS.get(response["stopReason"], "stop")
    return Answer(index, variant, text, response["usage"]["outputTokens"], finish_reason)
