"""Bodies of InvokeModel: each model family has its own request, response and stream chunks.

Source of the formats: Bedrock user guide, "Inference request parameters and response fields for
foundation models"; for imported models "Invoke your imported model".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias, cast

from cloudft.endpoint.bedrock.local_inference import InferenceRequest, InferenceResult
from cloudft.endpoint.bedrock.shapes import InferenceConfig
from cloudft.endpoint.protocols.json_shapes import load_json
from cloudft.endpoint.protocols.messages import Response, ServiceError

JsonObject: TypeAlias = Mapping[str, Any]
"""A JSON object from a caller. Unlike other requests, no service model describes a body."""


def _is_number(value: object) -> bool:
    return type(value) in (int, float)  # not isinstance: a bool is no number here


PARAMETER_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "maxTokens": lambda value: type(value) is int and value >= 0,
    "temperature": lambda value: _is_number(value) and 0 <= value <= 5,
    "topP": lambda value: _is_number(value) and 0 <= value <= 1,
    "stopSequences": lambda value: (
        type(value) is list and all(type(text) is str and text for text in value)
    ),
}
"""Valid values of each parameter: the widest range that any family accepts."""
LLAMA_TURN_PATTERN = re.compile(
    r"<\|start_header_id\|>(?P<role>\w+)<\|end_header_id\|>\s*(?P<text>.*?)<\|eot_id\|>", re.S
)


@dataclass(frozen=True)
class BodyFormat:
    """How a model family reads a request and writes the answer: whole, or in chunks."""

    parse_request: Callable[[JsonObject, bool], InferenceRequest]
    format_response: Callable[[InferenceResult], Response]
    format_chunks: Callable[[InferenceResult], Iterator[Response]]


def body_format_of(base: str, *, imported: bool = False) -> BodyFormat:
    """Return the body format of a model id. Raises ValidationException if there is none here."""
    if imported:
        return IMPORTED_FORMAT
    known = next((made for start, made in BODY_FORMATS.items() if base.startswith(start)), None)
    if known is None:
        raise ServiceError("ValidationException", f"{base} can't be invoked here; use Converse.")
    return known


def parse_json_object(body: bytes) -> JsonObject:
    """Parse the JSON object of a body. Raises ValidationException."""
    try:
        content = load_json(body)
    except ValueError:
        content = None
    if not isinstance(content, dict):
        raise ServiceError("ValidationException", "Malformed input request: it is no JSON object")
    return content


def parse_request(body_format: BodyFormat, body: JsonObject, *, raw: bool) -> InferenceRequest:
    """Parse a body; `raw` for a model that continues text. Raises ValidationException."""
    try:
        return body_format.parse_request(body, raw)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        # A body is untyped: whatever its parser stumbles over is the caller's mistake.
        what = f"Malformed input request: {type(error).__name__} {error}"
        raise ServiceError("ValidationException", what) from None


def split_into_chunks(text: str) -> Iterator[str]:
    """Yield the text in the chunks of a stream: a word each, with the space before it."""
    yield from re.findall(r"\s*\S+|\s+$", text)


def join_text_blocks(content: Any) -> str:
    """Return the text of a message's content: a string, or blocks of which some are text."""
    if isinstance(content, str):
        return content
    return "\n".join(block["text"] for block in content if "text" in block)


def normalize_messages(messages: Any, system: Any = None) -> tuple[Mapping[str, str], ...]:
    """Return messages as role and text, the system message first. Raises ValueError."""
    first = ({"role": "system", "content": join_text_blocks(system)},) if system else ()
    turns = tuple(
        {"role": str(m["role"]), "content": join_text_blocks(m["content"])} for m in messages
    )
    return (*first, *_require_user_first(turns))


def _require_user_first(turns: Sequence[Mapping[str, str]]) -> tuple[Mapping[str, str], ...]:
    """Return the turns. Raises ValueError unless the user's comes first, as models require."""
    roles = [turn["role"] for turn in turns if turn["role"] != "system"]
    if not roles:
        raise ValueError("there is no message")
    if roles[0] != "user":
        raise ValueError("a conversation must start with a user message")
    return tuple(turns)


def _prompt_request(text: str, raw: bool, config: InferenceConfig) -> InferenceRequest:
    """Return the request of a single prompt. Llama's turn markers in it become messages."""
    if not isinstance(text, str):
        raise TypeError("the prompt is no text")
    if raw:
        return InferenceRequest(text=text, inference_config=config)
    turns = [
        {"role": m["role"], "content": m["text"].strip()} for m in LLAMA_TURN_PATTERN.finditer(text)
    ] or [{"role": "user", "content": text}]
    return InferenceRequest(messages=_require_user_first(turns), inference_config=config)


def _inference_config(body: JsonObject, names: Mapping[str, str]) -> InferenceConfig:
    """Return the limits in a body; `names` maps the family's names to Converse's."""
    config = {ours: body[theirs] for theirs, ours in names.items() if body.get(theirs) is not None}
    for name, value in config.items():
        if not PARAMETER_CHECKS[name](value):
            raise ValueError(f"{name} can't be {str(value)[:100]}")
    return cast(InferenceConfig, config)


def _parse_titan(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {
        "maxTokenCount": "maxTokens",
        "temperature": "temperature",
        "topP": "topP",
        "stopSequences": "stopSequences",
    }
    config = _inference_config(body.get("textGenerationConfig", {}), names)
    return _prompt_request(body["inputText"], raw, config)


TITAN_REASONS = {"max_tokens": "LENGTH", "stop_sequence": "STOP_CRITERIA_MET"}


def _titan_reason(result: InferenceResult) -> str:
    return TITAN_REASONS.get(result.stop_reason, "FINISH")


def _format_titan(result: InferenceResult) -> Response:
    answer = {
        "tokenCount": result.output_tokens,
        "outputText": result.text,
        "completionReason": _titan_reason(result),
    }
    return {"inputTextTokenCount": result.input_tokens, "results": [answer]}


def _titan_chunks(result: InferenceResult) -> Iterator[Response]:
    chunks = list(split_into_chunks(result.text)) or [""]
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        yield {
            "outputText": chunk,
            "index": 0,
            "totalOutputTextTokenCount": result.output_tokens if last else None,
            "completionReason": _titan_reason(result) if last else None,
            "inputTextTokenCount": result.input_tokens if number == 0 else None,
        }


NOVA_PARAMETERS = {
    "maxTokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
}


def _parse_nova(body: JsonObject, raw: bool) -> InferenceRequest:
    messages = normalize_messages(body["messages"], body.get("system"))
    config = _inference_config(body.get("inferenceConfig", {}), NOVA_PARAMETERS)
    return InferenceRequest(messages=messages, inference_config=config)


def converse_usage(result: InferenceResult) -> dict[str, int]:
    """Return Converse's `usage`."""
    return {
        "inputTokens": result.input_tokens,
        "outputTokens": result.output_tokens,
        "totalTokens": result.input_tokens + result.output_tokens,
    }


def converse_output(result: InferenceResult) -> Response:
    """Return the answer by Converse's members, which Nova's own body has too."""
    message = {"role": "assistant", "content": [{"text": result.text}]}
    return {
        "output": {"message": message},
        "stopReason": result.stop_reason,
        "usage": converse_usage(result),
    }


def converse_stream_events(result: InferenceResult) -> Iterator[tuple[str, Response]]:
    """Yield the events of ConverseStream, each with its name."""
    yield "messageStart", {"role": "assistant"}
    for chunk in split_into_chunks(result.text):
        yield "contentBlockDelta", {"contentBlockIndex": 0, "delta": {"text": chunk}}
    yield "contentBlockStop", {"contentBlockIndex": 0}
    yield "messageStop", {"stopReason": result.stop_reason}
    yield "metadata", {"usage": converse_usage(result), "metrics": {"latencyMs": 0}}


def _nova_chunks(result: InferenceResult) -> Iterator[Response]:
    return ({name: content} for name, content in converse_stream_events(result))


def _parse_llama(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
    return _prompt_request(body["prompt"], raw, _inference_config(body, names))


def _llama_reason(result: InferenceResult) -> str:
    return "length" if result.stop_reason == "max_tokens" else "stop"


def _format_llama(result: InferenceResult) -> Response:
    return {
        "generation": result.text,
        "prompt_token_count": result.input_tokens,
        "generation_token_count": result.output_tokens,
        "stop_reason": _llama_reason(result),
    }


def _llama_chunks(result: InferenceResult) -> Iterator[Response]:
    chunks = list(split_into_chunks(result.text)) or [""]
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        yield {
            "generation": chunk,
            "prompt_token_count": result.input_tokens if number == 0 else None,
            "generation_token_count": result.output_tokens if last else number + 1,
            "stop_reason": _llama_reason(result) if last else None,
        }


def _parse_claude(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
        "stop_sequences": "stopSequences",
    }
    messages = normalize_messages(body["messages"], body.get("system"))
    return InferenceRequest(messages=messages, inference_config=_inference_config(body, names))


def _format_claude(result: InferenceResult) -> Response:
    return {
        "id": "msg_local",
        "type": "message",
        "role": "assistant",
        "content": [{"type": "text", "text": result.text}],
        "stop_reason": result.stop_reason,
        "stop_sequence": None,
        "usage": {"input_tokens": result.input_tokens, "output_tokens": result.output_tokens},
    }


def _claude_chunks(result: InferenceResult) -> Iterator[Response]:
    # Anthropic's own event order: the message without content, its one block, the end.
    start: Response = {**_format_claude(result), "content": [], "stop_reason": None}
    yield {"type": "message_start", "message": start}
    block = {"type": "text", "text": ""}
    yield {"type": "content_block_start", "index": 0, "content_block": block}
    for chunk in split_into_chunks(result.text):
        delta = {"type": "text_delta", "text": chunk}
        yield {"type": "content_block_delta", "index": 0, "delta": delta}
    yield {"type": "content_block_stop", "index": 0}
    yield {
        "type": "message_delta",
        "delta": {"stop_reason": result.stop_reason, "stop_sequence": None},
        "usage": {"output_tokens": result.output_tokens},
    }
    yield {"type": "message_stop"}


def _parse_cohere(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "p": "topP",
        "stop_sequences": "stopSequences",
    }
    return _prompt_request(body["prompt"], raw, _inference_config(body, names))


def _cohere_reason(result: InferenceResult) -> str:
    return "MAX_TOKENS" if result.stop_reason == "max_tokens" else "COMPLETE"


def _format_cohere(result: InferenceResult) -> Response:
    answer = {"id": "local", "text": result.text, "finish_reason": _cohere_reason(result)}
    return {"id": "local", "generations": [answer]}


def _cohere_chunks(result: InferenceResult) -> Iterator[Response]:
    for chunk in split_into_chunks(result.text):
        yield {"text": chunk, "is_finished": False}
    yield {"is_finished": True, "finish_reason": _cohere_reason(result)}


def _parse_imported(body: JsonObject, raw: bool) -> InferenceRequest:
    """Parse Bedrock's completion body, or OpenAI's completion or chat body."""
    if "messages" in body:
        return _parse_claude(body, raw)
    names = {
        "max_gen_len": "maxTokens",
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "top_p": "topP",
    }
    # Bedrock puts no chat template around an imported model's prompt.
    return _prompt_request(body["prompt"], True, _inference_config(body, names))


BODY_FORMATS = {
    "amazon.titan": BodyFormat(_parse_titan, _format_titan, _titan_chunks),
    "amazon.nova": BodyFormat(_parse_nova, converse_output, _nova_chunks),
    "meta.llama": BodyFormat(_parse_llama, _format_llama, _llama_chunks),
    "anthropic.claude": BodyFormat(_parse_claude, _format_claude, _claude_chunks),
    "cohere.command": BodyFormat(_parse_cohere, _format_cohere, _cohere_chunks),
}
"""Body formats by the prefix of a model's id. A new family is a BodyFormat here."""
IMPORTED_FORMAT = BodyFormat(_parse_imported, _format_llama, _llama_chunks)


def _format_openai(result: InferenceResult, choice: JsonObject) -> Response:
    used = {
        "prompt_tokens": result.input_tokens,
        "completion_tokens": result.output_tokens,
        "total_tokens": result.input_tokens + result.output_tokens,
    }
    full_choice = {"index": 0, "finish_reason": _llama_reason(result), **choice}
    return {"choices": [full_choice], "usage": used}


def _format_chat_completion(result: InferenceResult) -> Response:
    message = {"role": "assistant", "content": result.text}
    return {"object": "chat.completion", **_format_openai(result, {"message": message})}


def _format_text_completion(result: InferenceResult) -> Response:
    return {"object": "text_completion", **_format_openai(result, {"text": result.text})}


def response_format(body_format: BodyFormat, body: JsonObject) -> BodyFormat:
    """Return the format of the answer: an imported model answers in the format of the request."""
    if body_format is not IMPORTED_FORMAT or not ("messages" in body or "max_tokens" in body):
        return body_format
    answer = _format_chat_completion if "messages" in body else _format_text_completion
    return BodyFormat(body_format.parse_request, answer, body_format.format_chunks)
