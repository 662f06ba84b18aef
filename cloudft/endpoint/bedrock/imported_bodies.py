"""Bodies of imported models: Bedrock's completion, and OpenAI's completion and chat completion.

Source: Bedrock user guide, "Invoke your imported model".
"""

from __future__ import annotations

from dataclasses import replace

from cloudft.endpoint.bedrock.body_checks import (
    BodyKeys,
    JsonObject,
    inference_config,
    malformed,
)
from cloudft.endpoint.bedrock.inference_request import InferenceRequest
from cloudft.endpoint.openai_api.chat_requests import SHARED_KEYS, parse_chat, parse_shared

BEDROCK_NAMES = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
COMPLETION_KEYS = BodyKeys(("prompt",), SHARED_KEYS)
BEDROCK_KEYS = BodyKeys(("prompt",), ("max_gen_len", "temperature", "top_p"))
OPENAI_ONLY = {*SHARED_KEYS} - BEDROCK_NAMES.keys()
"""Members of a completion that OpenAI's body has and Bedrock's has not."""


def is_chat(body: JsonObject) -> bool:
    """Return whether a body is OpenAI's chat."""
    return "messages" in body


def is_openai(body: JsonObject) -> bool:
    """Return whether a body is one of OpenAI's: it has a member that Bedrock's has not."""
    return is_chat(body) or bool(OPENAI_ONLY & body.keys())


def parse_imported(body: JsonObject, raw: bool) -> InferenceRequest:
    """Parse the body of a request in any of the three forms."""
    if is_chat(body):
        return parse_chat(body)
    if is_openai(body):
        COMPLETION_KEYS.check(body)
        return replace(parse_shared(body), text=_require_text(body["prompt"]))
    BEDROCK_KEYS.check(body)
    text, config = _require_text(body["prompt"]), inference_config(body, BEDROCK_NAMES)
    # Bedrock puts no chat template around an imported model's prompt.
    return InferenceRequest(text=text, inference_config=config)


def _require_text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise malformed("#/prompt: expected type: String.")
    return prompt
