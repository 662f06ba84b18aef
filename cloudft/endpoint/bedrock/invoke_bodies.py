"""Bodies of InvokeModel: each model family has its own request, response and stream chunks.

Source of the formats: Bedrock user guide, "Inference request parameters and response fields for
foundation models".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from cloudft.endpoint.bedrock import claude_bodies, imported_bodies
from cloudft.endpoint.bedrock.answer_stream import AnswerStream, InferenceResult, TextPart
from cloudft.endpoint.bedrock.body_checks import (
    BodyKeys,
    JsonObject,
    as_malformed,
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
)
from cloudft.endpoint.bedrock.inference_request import InferenceRequest
from cloudft.endpoint.bedrock.shapes import InferenceConfig
from cloudft.endpoint.openai_api import chat_answers
from cloudft.endpoint.openai_api.chat_answers import finish_reason
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
    format_chunks: Callable[[AnswerStream], Iterator[Response]]


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


def texts(answer: AnswerStream) -> Iterator[str]:
    """Yield the pieces of an answer's text, for families that know nothing else."""
    for part in answer:
        if isinstance(part, TextPart):
            yield part.text


def _titan_chunks(answer: AnswerStream) -> Iterator[Response]:
    chunk: Response = {
        "outputText": "",
        "index": 0,
        "totalOutputTextTokenCount": None,
        "completionReason": None,
        "inputTextTokenCount": None,
    }
    number = 0
    for number, text in enumerate(texts(answer), 1):
        count = answer.input_tokens if number == 1 else None
        yield {**chunk, "outputText": text, "inputTextTokenCount": count}
    result = answer.result
    yield {
        **chunk,
        "totalOutputTextTokenCount": result.output_tokens,
        "completionReason": _titan_reason(result),
        "inputTextTokenCount": None if number else result.input_tokens,
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
        tools=parse_tool_config(body.get("toolConfig"), messages),
        inference_config=inference_config(given, NOVA_PARAMETERS),
        top_k=parse_top_k(next((given[name] for name in NOVA_TOP_K if name in given), None)),
    )


def _nova_chunks(answer: AnswerStream) -> Iterator[Response]:
    return ({name: content} for name, content in converse_stream_events(answer))


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


def _llama_chunks(answer: AnswerStream) -> Iterator[Response]:
    number = 0
    for number, text in enumerate(texts(answer), 1):
        yield {
            "generation": text,
            "prompt_token_count": answer.input_tokens if number == 1 else None,
            "generation_token_count": number,
            "stop_reason": None,
        }
    result = answer.result
    yield {
        "generation": "",
        "prompt_token_count": None if number else result.input_tokens,
        "generation_token_count": result.output_tokens,
        "stop_reason": finish_reason(result),
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


def _cohere_chunks(answer: AnswerStream) -> Iterator[Response]:
    for text in texts(answer):
        yield {"text": text, "is_finished": False}
    yield {"is_finished": True, "finish_reason": _cohere_reason(answer.result)}


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
    with_usage = chat_answers.wants_usage(body)
    if imported_bodies.is_chat(body):
        answer, chunks = chat_answers.format_chat, chat_answers.chat_chunks
    else:
        answer, chunks = chat_answers.format_completion, chat_answers.completion_chunks
    return BodyFormat(
        body_format.parse_request, answer, functools.partial(chunks, with_usage=with_usage)
    )
