"""Requests of `/v1/chat/completions`: the members of the body, and what the engine gets.

Source: OpenAI API reference, "Create chat completion"; vLLM's OpenAI-compatible server for `top_k`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any

from msgspec import Meta

from cloudft.inference import Prompt
from cloudft.serving.engine import EngineModel, EngineRequest
from cloudft.serving.http.answer_writers import AnswerRequest
from cloudft.serving.http.body import (
    NEUTRAL,
    CommonBody,
    Count,
    check_stream_options,
    decode_body,
    require_neutral,
    stop_texts,
    wants_usage,
)
from cloudft.serving.http.decoding import read_decoding
from cloudft.serving.http.errors import invalid
from cloudft.serving.http.messages import ChatMessage, to_prompt_messages
from cloudft.serving.http.response_format import read_response_format
from cloudft.serving.http.tools import (
    NamedChoice,
    Tool,
    ToolUse,
    make_tool_use,
    wrong_tools,
)

CHAT_NEUTRAL: dict[str, tuple[object, ...]] = {
    **NEUTRAL,
    "audio": (),
    "chat_template_kwargs": ({},),
    "function_call": ("none",),
    "functions": ([],),
    "modalities": (["text"],),
    "moderation": (),
    "prediction": (),
    "reasoning_effort": (),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "verbosity": ("medium",),
    "web_search_options": (),
}


class ChatBody(CommonBody, kw_only=True, forbid_unknown_fields=True):
    """The body of a chat completion. The members after `safety_identifier` are CHAT_NEUTRAL's."""

    messages: list[ChatMessage]
    max_completion_tokens: Count | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: list[Tool] | None = None
    tool_choice: str | NamedChoice | None = None
    parallel_tool_calls: bool | None = None

    metadata: dict[str, Any] | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    safety_identifier: str | None = None

    audio: Any = None
    chat_template_kwargs: dict[str, Any] | None = None
    function_call: Any = None
    functions: list[Any] | None = None
    modalities: list[str] | None = None
    moderation: Any = None
    prediction: Any = None
    reasoning_effort: str | None = None
    service_tier: str | None = None
    store: bool | None = None
    verbosity: str | None = None
    web_search_options: Any = None


@dataclass(frozen=True, kw_only=True)
class ChatRequest(AnswerRequest):
    """A chat completion to answer."""

    tools: ToolUse


def parse_chat(raw: bytes) -> ChatBody:
    """Return the body of a chat completion. Raise ApiError."""
    body = decode_body(raw, ChatBody)
    require_neutral(body, CHAT_NEUTRAL)
    if body.top_logprobs and not body.logprobs:
        message = "'top_logprobs' needs 'logprobs': true."
        raise invalid(message, "top_logprobs", "invalid_value")
    check_stream_options(body)
    if None not in (body.max_tokens, body.max_completion_tokens):
        message = "Both 'max_tokens' and 'max_completion_tokens' are set; send one of them."
        raise invalid(message, "max_tokens", "invalid_value")
    return body


def make_chat_request(body: ChatBody, model: EngineModel) -> ChatRequest:
    """Return what the engine gets for a body. Raise ApiError."""
    tools = make_tool_use(body.tools, body.tool_choice, body.parallel_tool_calls)
    if tools.config is not None and "tools" not in model.features:
        raise wrong_tools(f"The chat template of {model.name!r} does not render tools.")
    schema = _schema(tools, read_response_format(body.response_format))
    prompt = Prompt(to_prompt_messages(body.messages), tool_config=tools.config)
    limit = body.max_completion_tokens or body.max_tokens or model.context or 2**31 - 1
    requests = [
        EngineRequest(
            model.name,
            prompt,
            decoding,
            stop_texts(body.stop),
            (body.top_logprobs or 0) if body.logprobs else None,
            schema,
        )
        for decoding in read_decoding(body, body.n or 1, limit)
    ]
    schema_member = "tools" if tools.schema is not None else "response_format"
    return ChatRequest(
        model=model,
        requests=requests,
        members={"prompt": "messages", "json_schema": schema_member},
        with_logprobs=bool(body.logprobs),
        stream=bool(body.stream),
        include_usage=wants_usage(body),
        tools=tools,
    )


def _schema(tools: ToolUse, text: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Return the one schema that an answer keeps. Raise ApiError for two of them."""
    if text is None:
        return tools.schema
    if tools.config is not None:
        message = (
            "'response_format' and 'tools' can't be combined: an answer that must be JSON of a"
            " schema can't be a tool call. Set 'tool_choice' to none, or leave one of them out."
        )
        raise invalid(message, "response_format", "unsupported_parameter")
    return text
