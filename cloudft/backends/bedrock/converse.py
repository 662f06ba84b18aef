"""A conversation in the form of Bedrock's Converse, and the answer in ours."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.inference import Answer, GenerationConfig, Prompt

FINISH_REASONS = {"max_tokens": "length"}


def converse_request(prompt: Prompt, decoding: GenerationConfig) -> dict[str, Any]:
    """What is asked: the members of Converse beside the model."""
    system = [{"text": m["content"]} for m in prompt.messages if m["role"] == "system"]
    turns = [
        {"role": m["role"], "content": [{"text": m["content"]}]}
        for m in prompt.messages
        if m["role"] != "system"
    ]
    settings = {
        "maxTokens": decoding.max_new_tokens,
        "temperature": decoding.temperature,
        "topP": decoding.top_p,
    }
    return {
        "messages": turns,
        "inferenceConfig": settings,
        **({"system": system} if system else {}),
    }


def parse_converse_response(response: Mapping[str, Any], index: int, variant: str) -> Answer:
    """Converse's answer to the question `index`."""
    content = response["output"]["message"]["content"]
    text = "".join(block.get("text", "") for block in content)
    stop = FINISH_REASONS.get(response["stopReason"], "stop")
    return Answer(index, variant, text, response["usage"]["outputTokens"], stop)
