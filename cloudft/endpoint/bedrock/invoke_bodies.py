"""Bodies of InvokeModel: each model family has its own request, response and stream chunks.

Source of the formats: Bedrock user guide, "Inference request parameters and response fields for
foundation models".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from cloudft.endpoint.bedrock import claude_bodies, imported_bodies
from cloudft.endpoint.bedrock.body_checks import (
    BodyKeys,
    JsonObject,
    inference_config,
    malformed,
)
from cloudft.endpoint.bedrock.converse_requests import (
    parse_messages,
    parse_tool_config,
    parse_top_k,
)
from cloudft.endpoint.bedrock.converse_responses import (
    converse_output,
    converse_stream_events,
    split_into_chunks,
)
from cloudft.endpoint.bedrock.imported_bodies import finish_reason
from cloudft.endpoint.bedrock.local_inference import InferenceRequest, InferenceResult
from cloudft.endpoint.bedrock.shapes import InferenceConfig
from cloudft.endpoint.protocols.messages import Response, ServiceError
from cloudft.endpoint.state import new_id

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


def parse_request(body_format: BodyFormat, body: JsonObject, *, raw: bool) -> InferenceRequest:
    """Parse a body; `raw` for a model that continues text. Raises ValidationException."""
    with as_malformed():
        return body_format.parse_request(body, raw)


@contextmanager
def as_malformed() -> Iterator[None]:
    """Raise ValidationException for what a parser stumbles over: a body is untyped."""
    ending = "please reformat your input and try again."
    try:
        yield
    except KeyError as error:
        raise malformed(f"#: required key [{error.args[0]}] not found, {ending}") from None
    except (TypeError, ValueError, AttributeError):
        raise malformed(f"#: a value has another type than it should, {ending}") from None


def _prompt_request(text: str, raw: bool, config: InferenceConfig) -> InferenceRequest:
    """Return the request of a single prompt. Llama's turn markers in it become messages."""
    if not isinstance(text, str):
        raise malformed(
            "#/prompt: expected type: String, please reformat your input and try again."
        )
    if raw:
        return InferenceRequest(text=text, inference_config=config)
    turns = [
        {"role": m["role"], "content": [{"text": m["text"].strip()}]}
        for m in LLAMA_TURN_PATTERN.finditer(text)
    ] or [{"role": "user", "content": [{"text": text}]}]
    return InferenceRequest(messages=parse_messages(turns, ()), inference_config=config)


def _parse_titan(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {
        "maxTokenCount": "maxTokens",
        "temperature": "temperature",
        "topP": "topP",
        "stopSequences": "stopSequences",
    }
    BodyKeys(("inputText",), ("textGenerationConfig",)).check(body)
    given = body.get("textGenerationConfig") or {}
    BodyKeys((), tuple(names)).check(given, "#/textGenerationConfig")
    config = inference_config(given, names)
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


NOVA_TOP_K = ("topK", "top_k")
NOVA_PARAMETERS = {
    "maxTokens": "maxTokens",
    "max_new_tokens": "maxTokens",
    "temperature": "temperature",
    "topP": "topP",
    "top_p": "topP",
    "stopSequences": "stopSequences",
}


def _parse_nova(body: JsonObject, raw: bool) -> InferenceRequest:
    keys = ("schemaVersion", "system", "inferenceConfig", "toolConfig")
    BodyKeys(("messages",), keys).check(body)
    for number, message in enumerate(body["messages"]):
        for index, block in enumerate(message["content"]):
            if "type" in block:  # OpenAI's and Anthropic's blocks (crmne/ruby_llm, issue 586)
                path = f"#/messages/{number}/content/{index}"
                raise malformed(
                    f"{path}: extraneous key [type] is not permitted, reformat your input and try"
                    " again."
                )
    given: Mapping[str, Any] = body.get("inferenceConfig") or {}
    BodyKeys((), (*NOVA_PARAMETERS, *NOVA_TOP_K)).check(given, "#/inferenceConfig")
    messages = parse_messages(body["messages"], body.get("system") or ())
    return InferenceRequest(
        messages=messages,
        tool_config=parse_tool_config(body.get("toolConfig"), messages),
        inference_config=inference_config(given, NOVA_PARAMETERS),
        top_k=parse_top_k(next((given[name] for name in NOVA_TOP_K if name in given), None)),
    )


def _nova_chunks(result: InferenceResult) -> Iterator[Response]:
    return ({name: content} for name, content in converse_stream_events(result))


def _parse_llama(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {"max_gen_len": "maxTokens", "temperature": "temperature", "top_p": "topP"}
    BodyKeys(("prompt",), tuple(names)).check(body)
    return _prompt_request(body["prompt"], raw, inference_config(body, names))


def _format_llama(result: InferenceResult) -> Response:
    return {
        "generation": result.text,
        "prompt_token_count": result.input_tokens,
        "generation_token_count": result.output_tokens,
        "stop_reason": finish_reason(result),
    }


def _llama_chunks(result: InferenceResult) -> Iterator[Response]:
    chunks = list(split_into_chunks(result.text)) or [""]
    for number, chunk in enumerate(chunks):
        last = number == len(chunks) - 1
        yield {
            "generation": chunk,
            "prompt_token_count": result.input_tokens if number == 0 else None,
            "generation_token_count": result.output_tokens if last else number + 1,
            "stop_reason": finish_reason(result) if last else None,
        }


def _parse_cohere(body: JsonObject, raw: bool) -> InferenceRequest:
    names = {
        "max_tokens": "maxTokens",
        "temperature": "temperature",
        "p": "topP",
        "stop_sequences": "stopSequences",
    }
    BodyKeys(("prompt",), (*names, "k", "stream", "return_likelihoods")).check(body)
    if body.get("return_likelihoods", "NONE") != "NONE":
        raise ServiceError("ValidationException", "This model doesn't give likelihoods.")
    parsed = _prompt_request(body["prompt"], raw, inference_config(body, names))
    return replace(parsed, top_k=parse_top_k(body.get("k")))


def _cohere_reason(result: InferenceResult) -> str:
    return "MAX_TOKENS" if result.stop_reason == "max_tokens" else "COMPLETE"


def _format_cohere(result: InferenceResult) -> Response:
    answer = {"id": new_id(), "text": result.text, "finish_reason": _cohere_reason(result)}
    return {"id": new_id(), "generations": [answer]}


def _cohere_chunks(result: InferenceResult) -> Iterator[Response]:
    for chunk in split_into_chunks(result.text):
        yield {"text": chunk, "is_finished": False}
    yield {"is_finished": True, "finish_reason": _cohere_reason(result)}


BODY_FORMATS = {
    "amazon.titan": BodyFormat(_parse_titan, _format_titan, _titan_chunks),
    "amazon.nova": BodyFormat(_parse_nova, converse_output, _nova_chunks),
    "meta.llama": BodyFormat(_parse_llama, _format_llama, _llama_chunks),
    "anthropic.claude": BodyFormat(
        claude_bodies.parse_claude, claude_bodies.format_claude, claude_bodies.claude_chunks
    ),
    "cohere.command": BodyFormat(_parse_cohere, _format_cohere, _cohere_chunks),
}
"""Body formats by the prefix of a model's id. A new family is a BodyFormat here."""
IMPORTED_FORMAT = BodyFormat(imported_bodies.parse_imported, _format_llama, _llama_chunks)


def response_format(body_format: BodyFormat, body: JsonObject) -> BodyFormat:
    """Return the format of the answer: an imported model answers in the format of the request."""
    if body_format is not IMPORTED_FORMAT or not imported_bodies.is_openai(body):
        return body_format
    if imported_bodies.is_chat(body):
        answer, chunks = imported_bodies.format_chat, imported_bodies.chat_chunks
    else:
        answer, chunks = imported_bodies.format_completion, imported_bodies.completion_chunks
    return BodyFormat(body_format.parse_request, answer, chunks)
