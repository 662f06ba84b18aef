"""Write prompts as requests of OpenAI's API, and read its replies.

A conversation becomes the messages that the trainer gives to the chat template
(local_backend/data/chat_messages.py), so that a server renders what the model was trained on.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from cloudft.data.formats.record import ToolCall, join_answer
from cloudft.errors import CloudRefused, UsageError
from cloudft.inference import FILTERED, Answer, GenerationConfig, Prompt

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"
FINISH_REASONS = {"length": "length", "content_filter": FILTERED}
"""Finish reason by that of a completion; `stop` for all others."""


def build_request(
    prompt: Prompt, model: str, decoding: GenerationConfig
) -> tuple[str, dict[str, Any]]:
    """Return path and body of a request for one answer. Raise UsageError for pictures and such."""
    body: dict[str, Any] = {
        "model": model,
        "max_tokens": decoding.max_new_tokens,
        "temperature": float(decoding.temperature),
        "top_p": float(decoding.top_p),
        "seed": decoding.seed,
    }
    if prompt.text is not None:
        return COMPLETION, {**body, "prompt": prompt.text}
    body["messages"] = to_openai_messages(prompt)
    if prompt.tool_config:
        body["tools"] = [_tool(one["toolSpec"]) for one in prompt.tool_config.get("tools", ())]
    return CHAT, body


def to_openai_messages(prompt: Prompt) -> list[dict[str, Any]]:
    """Return a conversation as OpenAI's messages."""
    messages: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for turn in prompt.messages:
        content = turn["content"]
        if isinstance(content, str):
            messages.append({"role": str(turn["role"]), "content": content})
        else:
            messages += _turn_messages(str(turn["role"]), content, names)
    return messages


def _turn_messages(
    role: str, blocks: Sequence[Mapping[str, Any]], names: dict[str, str]
) -> Iterator[dict[str, Any]]:
    """Yield a turn's messages, its tool results first. `names` maps a call's id to its tool."""
    texts: list[str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    has_results = False
    for block in blocks:
        if "toolResult" in block:
            has_results = True
            yield _result_message(block["toolResult"], names)
        elif "toolUse" in block:
            use = block["toolUse"]
            names[use["toolUseId"]] = use["name"]
            calls.append(_call(use))
        elif "reasoningContent" in block:
            thoughts.append(block["reasoningContent"]["reasoningText"]["text"])
        elif "text" in block:
            texts.append(block["text"])
        else:
            raise UsageError(
                f"a record has a block of type {next(iter(block), '?')!r}, which cloudft sends to"
                " no OpenAI-compatible server",
                fix="leave out records with such blocks.",
            )
    if has_results and not texts:
        return
    message: dict[str, Any] = {"role": role, "content": "\n".join(texts)}
    if thoughts:
        message["reasoning_content"] = "\n".join(thoughts)
    if calls:
        message["tool_calls"] = calls
    yield message


def _call(use: Mapping[str, Any]) -> dict[str, Any]:
    arguments = json.dumps(use["input"], ensure_ascii=False)
    return {
        "id": use["toolUseId"],
        "type": "function",
        "function": {"name": use["name"], "arguments": arguments},
    }


def _result_message(result: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    parts = [
        part["text"] if "text" in part else json.dumps(part["json"], ensure_ascii=False)
        for part in result["content"]
    ]
    prefix = "Error: " if result.get("status") == "error" else ""
    identifier = result["toolUseId"]
    return {
        "role": "tool",
        "tool_call_id": identifier,
        "name": names.get(identifier, ""),
        "content": prefix + "\n".join(parts),
    }


def _tool(spec: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "function",
        "function": {
            "name": spec["name"],
            "description": spec.get("description", ""),
            "parameters": spec["inputSchema"]["json"],
        },
    }


def parse_reply(reply: Mapping[str, Any], index: int, variant: str, url: str) -> Answer:
    """Return the answer in a completion. Raise CloudRefused for a reply that has none."""
    try:
        choice = reply["choices"][0]
        message = choice.get("message") or {"content": choice.get("text")}
        calls = [_parse_call(call) for call in message.get("tool_calls") or ()]
        usage = reply.get("usage") or {}
        return Answer(
            index,
            variant,
            join_answer(str(message.get("content") or ""), calls),
            int(usage.get("completion_tokens") or 0),
            FINISH_REASONS.get(str(choice.get("finish_reason")), "stop"),
            str(message.get("reasoning_content") or message.get("reasoning") or ""),
            [{"name": call.name, "arguments": call.arguments} for call in calls],
            int(usage.get("prompt_tokens") or 0),
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise CloudRefused(
            f"{url} sent a completion without an answer ({type(error).__name__})",
            fix="name the address of an OpenAI-compatible server: openai:http://HOST:PORT/v1",
        ) from error


def _parse_call(call: Mapping[str, Any]) -> ToolCall:
    """Return a tool call; arguments that are no JSON object are kept as a text."""
    function = call["function"]
    given = function.get("arguments") or "{}"
    try:
        arguments = json.loads(given) if isinstance(given, str) else given
    except (ValueError, RecursionError):
        arguments = given
    known = arguments if isinstance(arguments, dict) else {"": arguments}
    return ToolCall(str(call.get("id", "")), str(function["name"]), known)
