"""Bodies of imported models: Bedrock's completion, and OpenAI's completion and chat completion.

Source: Bedrock user guide, "Invoke your imported model"; OpenAI's API reference for its objects.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from typing import Any

from cloudft.endpoint.bedrock.body_checks import (
    BodyKeys,
    JsonObject,
    inference_config,
    malformed,
)
from cloudft.endpoint.bedrock.converse_requests import parse_messages, parse_top_k
from cloudft.endpoint.bedrock.converse_responses import split_into_chunks
from cloudft.endpoint.bedrock.local_inference import (
    InferenceRequest,
    InferenceResult,
    unsupported_block,
)
from cloudft.endpoint.protocols.messages import Response
from cloudft.endpoint.state import new_id

OPENAI_NAMES = {"max_tokens": "maxTokens", "temperature": "temperature", "top_p": "topP"}
BEDROCK_NAMES = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
OPENAI_OPTIONAL = ("max_tokens", "temperature", "top_p", "top_k", "stop", "stream", "model", "n")
CHAT_KEYS = BodyKeys(("messages",), OPENAI_OPTIONAL)
COMPLETION_KEYS = BodyKeys(("prompt",), OPENAI_OPTIONAL)
BEDROCK_KEYS = BodyKeys(("prompt",), ("max_gen_len", "temperature", "top_p"))


def is_chat(body: JsonObject) -> bool:
    """Return whether a body is OpenAI's chat."""
    return "messages" in body


def is_openai(body: JsonObject) -> bool:
    """Return whether a body is one of OpenAI's: it has a member that Bedrock's has not."""
    return is_chat(body) or bool({"max_tokens", "stop", "n", "model", "stream"} & body.keys())


def parse_imported(body: JsonObject, raw: bool) -> InferenceRequest:
    """Parse the body of a request in any of the three forms."""
    if not is_openai(body):
        BEDROCK_KEYS.check(body)
        text, config = _require_text(body["prompt"]), inference_config(body, BEDROCK_NAMES)
        # Bedrock puts no chat template around an imported model's prompt.
        return InferenceRequest(text=text, inference_config=config)
    config = inference_config(body, OPENAI_NAMES)
    config |= inference_config({"stop": _stops(body)}, {"stop": "stopSequences"})
    top_k = parse_top_k(body.get("top_k"))
    if body.get("n") not in (None, 1):
        raise malformed("#/n: one answer is given to a request.")
    if not is_chat(body):
        COMPLETION_KEYS.check(body)
        text = _require_text(body["prompt"])
        return InferenceRequest(text=text, inference_config=config, top_k=top_k)
    CHAT_KEYS.check(body)
    turns = [{"role": m["role"], "content": _blocks(m["content"])} for m in body["messages"]]
    messages = parse_messages(turns, ())
    return InferenceRequest(messages=messages, inference_config=config, top_k=top_k)


def _stops(body: JsonObject) -> object:
    stop = body.get("stop")
    return [stop] if isinstance(stop, str) else stop


def _require_text(prompt: object) -> str:
    if not isinstance(prompt, str):
        raise malformed("#/prompt: expected type: String.")
    return prompt


def _blocks(content: Any) -> list[Mapping[str, Any]]:
    if isinstance(content, str):
        return [{"text": content}]
    for part in content:
        if part["type"] != "text":
            raise unsupported_block(str(part["type"]))
    return [{"text": part["text"]} for part in content]


def finish_reason(result: InferenceResult) -> str:
    """Return why an answer ended, in the words of OpenAI and of Llama."""
    return "length" if result.stop_reason == "max_tokens" else "stop"


def _usage(result: InferenceResult) -> dict[str, int]:
    return {
        "prompt_tokens": result.input_tokens,
        "completion_tokens": result.output_tokens,
        "total_tokens": result.input_tokens + result.output_tokens,
    }


def _object(kind: str, identifier: str, result: InferenceResult) -> Response:
    """Return the members that all of OpenAI's objects have."""
    created = int(time.time())
    return {"id": identifier, "object": kind, "created": created, "model": result.model_id}


def _choice(reason: str | None, **content: object) -> list[Response]:
    return [{"index": 0, **content, "logprobs": None, "finish_reason": reason}]


def format_chat(result: InferenceResult) -> Response:
    """Return OpenAI's chat completion."""
    message = {"role": "assistant", "content": result.text}
    made = _object("chat.completion", f"chatcmpl-{new_id()}", result)
    choices = _choice(finish_reason(result), message=message)
    return {**made, "choices": choices, "usage": _usage(result)}


def chat_chunks(result: InferenceResult) -> Iterator[Response]:
    """Yield OpenAI's chunks of a chat completion; the last has the usage."""
    made = _object("chat.completion.chunk", f"chatcmpl-{new_id()}", result)
    yield {**made, "choices": _choice(None, delta={"role": "assistant", "content": ""})}
    for chunk in split_into_chunks(result.text):
        yield {**made, "choices": _choice(None, delta={"content": chunk})}
    choices = _choice(finish_reason(result), delta={})
    yield {**made, "choices": choices, "usage": _usage(result)}


def format_completion(result: InferenceResult) -> Response:
    """Return OpenAI's text completion."""
    made = _object("text_completion", f"cmpl-{new_id()}", result)
    choices = _choice(finish_reason(result), text=result.text)
    return {**made, "choices": choices, "usage": _usage(result)}


def completion_chunks(result: InferenceResult) -> Iterator[Response]:
    """Yield OpenAI's chunks of a text completion; the last has the usage."""
    made = _object("text_completion", f"cmpl-{new_id()}", result)
    for chunk in split_into_chunks(result.text):
        yield {**made, "choices": _choice(None, text=chunk)}
    choices = _choice(finish_reason(result), text="")
    yield {**made, "choices": choices, "usage": _usage(result)}
