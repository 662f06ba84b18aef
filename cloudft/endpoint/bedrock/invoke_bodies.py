"""InvokeModel's bodies: each family of models has its own shape, and its own pieces of a stream.

Source of the shapes: Bedrock user guide, "Inference request parameters and response fields for
foundation models"; for imported models "Invoke your imported model".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.bedrock.local_inference import InferenceRequest, InferenceResult
from cloudft.endpoint.protocols.json_shapes import load_json
from cloudft.endpoint.protocols.messages import ServiceError

Body = Mapping[str, Any]
PARAMETER_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "maxTokens": lambda value: type(value) is int and value >= 0,
    "temperature": lambda value: type(value) in (int, float) and 0 <= value <= 5,
    "topP": lambda value: type(value) in (int, float) and 0 <= value <= 1,
    "stopSequences": lambda value: (
        type(value) is list and all(type(word) is str and word for word in value)
    ),
}
"""What a limit may be: the widest that any family takes."""
LLAMA_TURN_PATTERN = re.compile(
    r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*(?P<text>.*?)<\|eot_id\|>", re.S
)


@dataclass(frozen=True)
class BodyFormat:
    """How to read a request of that family, and to tell the reply: whole, or piece by piece."""

    parse_request: Callable[[Body, bool], InferenceRequest]
    format_response: Callable[[InferenceResult], Body]
    format_chunks: Callable[[InferenceResult], Iterator[Body]]


def body_format_of(base: str, *, imported: bool = False) -> BodyFormat:
    """The family of a model id. Raises ValidationException for one that has no such body here."""
    if imported:
        return IMPORTED_FORMAT
    found = next((made for start, made in BODY_FORMATS.items() if base.startswith(start)), None)
    if found is None:
        raise ServiceError("ValidationException", f"{base} can't be invoked here; use Converse.")
    return found


def parse_json_object(body: bytes) -> Body:
    """The JSON object of a request. Raises ValidationException."""
    try:
        content = load_json(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "Malformed input request: it is no JSON object")
    return content


def parse_request(family: BodyFormat, body: Body, *, raw: bool) -> InferenceRequest:
    """The question in a body; `raw` for a model that goes on with text. Raises WireError."""
    try:
        return family.parse_request(body, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        what = f"Malformed input request: {type(error).__name__} {error}"
        raise ServiceError("ValidationException", what) from None


def split_into_chunks(text: str) -> Iterator[str]:
    """The text in the pieces of a stream."""
    yield from re.findall(r"\s*\S+|\s+$", text)


def join_text_blocks(content: Any) -> str:
    """The text of a message's content: text itself, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if "text" in block)


def normalize_messages(messages: Any, system: Any = None) -> tuple[Mapping[str, str], ...]:
    """Messages in the one form, the system's first."""
    first = ({"role": "system", "content": join_text_blocks(system)},) if system else ()
    turns = tuple(
        {"role": str(m["role"]), "content": join_text_blocks(m["content"])} for m in messages
    )
    return (*first, *_require_user_first(turns))


def _require_user_first(turns: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    """The turns. Raises ValueError when they are not the user's at first: a model answers those."""
    said = [turn["role"] for turn in turns if turn["role"] != "system"]
    if not said:
        raise ValueError("there is no message")
    if said[0] != "user":
        raise ValueError("a conversation must start with a user message")
    return tuple(turns)


def _prompt_request(text: str, raw: bool, limits: Body) -> InferenceRequest:
    if not isinstance(text, str):
        raise TypeError("the prompt is no text")
    if raw:
        return InferenceRequest(text=text, inference_config=limits)
    turns = [
        {"role": m["role"], "content": m["text"].strip()} for m in LLAMA_TURN_PATTERN.finditer(text)
    ] or [{"role": "user", "content": text}]
    return InferenceRequest(messages=_require_user_first(turns), inference_config=limits)


def _inference_config(body: Body, names: Mapping[str, str]) -> dict[str, Any]:
    limits = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
    for name, value in limits.items():
        if not PARAMETER_CHECKS[name](value):
            raise ValueError(f"{name} can't be {str(value)[:100]}")
    return limits


def _parse_titan(body: Body, raw: bool) -> InferenceRequest:
    names = {
        "maxTokenCount": "maxTokens",
        "temperature": "temperature",
        "topP": "topP",
        "stopSequences": "stopSequences",
    }
    return _prompt_request(
        body["inputText"], raw, _inference_config(body.get("textGenerationConfig", {}), names)
    )


def _format_titan(reply: InferenceResult) -> Body:
    reason = {"max_tokens": "LENGTH", "stop_sequence": "STOP_CRITERIA_MET"}.get(reply.stop_reason)
    result = {
        "tokenCount": reply.output_tokens,
        "outputText": reply.text,
        "completionReason": reason or "FINISH",
    }
    return {"inputTextTokenCount": reply.input_tokens, "results": [result]}


def _titan_chunks(reply: InferenceResult) -> Iterator[Body]:
    whole = _format_titan(reply)
    result = whole["results"][0]
    pieces = list(split_into_chunks(reply.text)) or [""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        yield {
            "outputText": piece,
            "index": 0,
            "totalOutputTextTokenCount": reply.output_tokens if last else None,
            "completionReason": result["completionReason"] if last else None,
            "inputTextTokenCount": reply.input_tokens if number == 0 else None,
        }


NOVA_PARAMETERS = {
    "maxTokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
}


def _parse_nova(body: Body, raw: bool) -> InferenceRequest:
    turns = normalize_messages(body["messages"], body.get("system"))
    return InferenceRequest(
        messages=turns,
        inference_config=_inference_config(body.get("inferenceConfig", {}), NOVA_PARAMETERS),
    )


def converse_usage(reply: InferenceResult) -> dict[str, int]:
    """Converse's `usage`."""
    return {
        "inputTokens": reply.input_tokens,
        "outputTokens": reply.output_tokens,
        "totalTokens": reply.input_tokens + reply.output_tokens,
    }


def _format_nova(reply: InferenceResult) -> Body:
    message = {"role": "assistant", "content": [{"text": reply.text}]}
    return {
        "output": {"message": message},
        "stopReason": reply.stop_reason,
        "usage": converse_usage(reply),
    }


def converse_stream_events(reply: InferenceResult) -> Iterator[tuple[str, dict[str, Any]]]:
    """ConverseStream's events, by name."""
    yield "messageStart", {"role": "assistant"}
    for piece in split_into_chunks(reply.text):
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": piece}}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": reply.stop_reason}
    yield "metadata", {"usage": converse_usage(reply), "metrics": {"latencyMs": 0}}


def _nova_chunks(reply: InferenceResult) -> Iterator[Body]:
    return ({name: content} for name, content in converse_stream_events(reply))


def _parse_llama(body: Body, raw: bool) -> InferenceRequest:
    names = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
    return _prompt_request(body["prompt"], raw, _inference_config(body, names))


def _format_llama(reply: InferenceResult) -> Body:
    return {
        "generation": reply.text,
        "prompt_token_count": reply.input_tokens,
        "generation_token_count": reply.output_tokens,
        "stop_reason": "length" if reply.stop_reason == "max_tokens" else "stop",
    }


def _llama_chunks(reply: InferenceResult) -> Iterator[Body]:
    pieces = list(split_into_chunks(reply.text)) or [""]
    for number, piece in enumerate(pieces):
        last = number == len(pieces) - 1
        yield {
            "generation": piece,
            "prompt_token_count": reply.input_tokens if number == 0 else None,
            "generation_token_count": reply.output_tokens if last else number + 1,
            "stop_reason": _format_llama(reply)["stop_reason"] if last else None,
        }


def _parse_claude(body: Body, raw: bool) -> InferenceRequest:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
        "stop_sequences": "stopSequences",
    }
    turns = normalize_messages(body["messages"], body.get("system"))
    return InferenceRequest(messages=turns, inference_config=_inference_config(body, names))


def _format_claude(reply: InferenceResult) -> Body:
    return {
        "id": "msg_local",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": reply.text}],
        "stop_reason": reply.stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens},
    }


def _claude_chunks(reply: InferenceResult) -> Iterator[Body]:
    whole = _format_claude(reply)
    start = whole | {"content": [], "stop_reason": None}  # type: ignore[operator]
    yield {"type": "message_start", "message": start}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for piece in split_into_chunks(reply.text):
        delta = {"type": "text_delta", "text": piece}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    ending = {"stop_reason": reply.stop_reason, "stop_sequence": None}
    yield {
        "type": "message_delta",
        "delta": ending,
        "usage": {"output_tokens": reply.output_tokens},
    }
    yield {"type": "message_stop"}


def _parse_cohere(body: Body, raw: bool) -> InferenceRequest:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "p": "topP",
        "stop_sequences": "stopSequences",
    }
    return _prompt_request(body["prompt"], raw, _inference_config(body, names))


def _format_cohere(reply: InferenceResult) -> Body:
    reason = "MAX_TOKENS" if reply.stop_reason == "max_tokens" else "COMPLETE"
    return {
        "id": "local",
        "generations": [{"id": "local", "text": reply.text, "finish_reason": reason}],
    }


def _cohere_chunks(reply: InferenceResult) -> Iterator[Body]:
    for piece in split_into_chunks(reply.text):
        yield {"text": piece, "is_finished": False}
    yield {
        "is_finished": True,
        "finish_reason": _format_cohere(reply)["generations"][0]["finish_reason"],
    }


def _parse_imported(body: Body, raw: bool) -> InferenceRequest:
    """Bedrock's completion, or OpenAI's completion or chat."""
    if "messages" in body:
        return _parse_claude(body, raw)
    names = {
        "max_gen_len": "maxTokens",
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
    }
    return _prompt_request(body["prompt"], True, _inference_config(body, names))


BODY_FORMATS = {
    "amazon.titan": BodyFormat(_parse_titan, _format_titan, _titan_chunks),
    "amazon.nova": BodyFormat(_parse_nova, _format_nova, _nova_chunks),
    "meta.llama": BodyFormat(_parse_llama, _format_llama, _llama_chunks),
    "anthropic.claude": BodyFormat(_parse_claude, _format_claude, _claude_chunks),
    "cohere.command": BodyFormat(_parse_cohere, _format_cohere, _cohere_chunks),
}
IMPORTED_FORMAT = BodyFormat(_parse_imported, _format_llama, _llama_chunks)


def _format_openai(reply: InferenceResult, choice: Body) -> Body:
    ended = "length" if reply.stop_reason == "max_tokens" else "stop"
    used = {
        "prompt_tokens": reply.input_tokens,
        "completion_tokens": reply.output_tokens,
        "total_tokens": reply.input_tokens + reply.output_tokens,
    }
    return {"choices": [{"index": 0, "finish_reason": ended, **choice}], "usage": used}


def _format_chat_completion(reply: InferenceResult) -> Body:
    message = {"role": "assistant", "content": reply.text}
    return {"object": "chat.completion", **_format_openai(reply, {"message": message})}


def _format_text_completion(reply: InferenceResult) -> Body:
    return {"object": "text_completion", **_format_openai(reply, {"text": reply.text})}


def response_format(family: BodyFormat, body: Body) -> BodyFormat:
    """An imported model answers in the form in which it is asked: Bedrock's, or OpenAI's."""
    if family is not IMPORTED_FORMAT or not ("messages" in body or "max_tokens" in body):
        return family
    return BodyFormat(
        family.parse_request,
        _format_chat_completion if "messages" in body else _format_text_completion,
        family.format_chunks,
    )
