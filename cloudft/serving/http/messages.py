"""Turn the messages of a chat completion into a prompt: turns of the Converse API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from cloudft.inference import Message
from cloudft.serving.http.errors import ApiError, invalid
from cloudft.web.json_text import load_json_text

ROLES = ("system", "developer", "user", "assistant", "tool")
JsonObject = dict[str, Any]


class Function(Struct, forbid_unknown_fields=True):
    """A function that was called. `arguments` is JSON text.

    OpenAI's clients add `parsed_arguments` to an answer: the same once more.
    """

    name: str
    arguments: str
    parsed_arguments: Any = None


class Call(Struct, forbid_unknown_fields=True):
    """A tool call in a message of the assistant. `index` comes from joined parts of streams."""

    id: str
    function: Function
    type: str = "function"
    index: int | None = None


class ChatMessage(Struct, kw_only=True, forbid_unknown_fields=True):
    """A message of a chat. The members after `name` are the assistant's, `tool_call_id` a tool's.

    Reasoning is read from `reasoning_content` (DeepSeek, litellm) and `reasoning` (vLLM since
    0.16). What OpenAI's own answers have besides (`refusal`, `annotations`, `audio`) may come back
    empty. `parsed` (of OpenAI's clients) and `provider_specific_fields` (of litellm) say what the
    message says otherwise too.
    """

    role: str
    content: str | list[dict[str, Any]] | None = None
    name: str | None = None
    tool_calls: list[Call] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    annotations: list[Any] | None = None
    audio: dict[str, Any] | None = None
    function_call: dict[str, Any] | None = None
    parsed: Any = None
    provider_specific_fields: dict[str, Any] | None = None


def to_prompt_messages(messages: Sequence[ChatMessage]) -> list[Message]:
    """Return the turns of a prompt. Raise ApiError for what no language model here reads."""
    if not messages:
        raise invalid("'messages' is empty.", "messages", "invalid_value")
    open_calls: set[str] = set()
    return [
        _to_turn(message, f"messages[{index}]", open_calls)
        for index, message in enumerate(messages)
    ]


def _to_turn(message: ChatMessage, path: str, open_calls: set[str]) -> Message:
    """Return one message as a turn. `open_calls` are the ids of the calls before it."""
    _refuse_unread(message, path)
    if message.role in ("system", "developer"):
        return {"role": "system", "content": _require_text(message, path)}
    if message.role == "user":
        return {"role": "user", "content": _require_text(message, path)}
    if message.role == "tool":
        return _tool_turn(message, path, open_calls)
    if message.role == "assistant":
        return _assistant_turn(message, path, open_calls)
    shown = message.role[:40]
    raise _invalid(f"{path}.role is {shown!r}; write one of {', '.join(ROLES)}.", f"{path}.role")


def _refuse_unread(message: ChatMessage, path: str) -> None:
    """Raise ApiError for a member that carries meaning and would be left out."""
    for name in ("refusal", "annotations", "audio", "function_call"):
        if getattr(message, name):
            raise _invalid(f"{path} has {name!r}, which no model here reads.", f"{path}.{name}")
    calls_allowed = message.role == "assistant"
    for name in ("tool_calls", "reasoning_content", "reasoning"):
        if getattr(message, name) and not calls_allowed:
            raise _invalid(f"{path} has {name!r}, but is not the assistant's.", f"{path}.{name}")


def _assistant_turn(message: ChatMessage, path: str, open_calls: set[str]) -> Message:
    text = _text_of(message.content, f"{path}.content")
    thought = message.reasoning_content or message.reasoning
    calls = message.tool_calls or []
    if text is None and not calls:
        raise _invalid(f"{path} has neither content nor tool calls.", f"{path}.content")
    if not thought and not calls:
        return {"role": "assistant", "content": text or ""}
    blocks: list[JsonObject] = []
    if thought:
        blocks.append({"reasoningContent": {"reasoningText": {"text": thought}}})
    if text:
        blocks.append({"text": text})
    for index, call in enumerate(calls):
        arguments = _decode_arguments(call.function.arguments, f"{path}.tool_calls[{index}]")
        use = {"toolUseId": call.id, "name": call.function.name, "input": arguments}
        blocks.append({"toolUse": use})
        open_calls.add(call.id)
    return {"role": "assistant", "content": blocks}


def _tool_turn(message: ChatMessage, path: str, open_calls: set[str]) -> Message:
    """Return a tool's result, which is a user's turn in the Converse API."""
    if message.tool_call_id not in open_calls:
        raise _invalid(
            f"{path} has the role 'tool', but its tool_call_id is that of no tool call before it.",
            f"{path}.tool_call_id",
        )
    text = _require_text(message, path)
    result = {"toolUseId": message.tool_call_id, "content": [{"text": text}]}
    return {"role": "user", "content": [{"toolResult": result}]}


def _decode_arguments(text: str, path: str) -> JsonObject:
    try:
        arguments = load_json_text(text or "{}")
    except ValueError:
        arguments = None
    if not isinstance(arguments, dict):
        where = f"{path}.function.arguments"
        raise _invalid(f"{where} is not a JSON object as text.", where)
    return arguments


def _require_text(message: ChatMessage, path: str) -> str:
    text = _text_of(message.content, f"{path}.content")
    if text is None:
        raise _invalid(f"{path} has no content.", f"{path}.content")
    return text


def _text_of(content: str | list[dict[str, Any]] | None, path: str) -> str | None:
    """Return a content's texts as one. Raise ApiError for parts that are none."""
    if content is None or isinstance(content, str):
        return content
    return "\n".join(_part_text(part, f"{path}[{index}]") for index, part in enumerate(content))


def _part_text(part: Mapping[str, Any], path: str) -> str:
    text, kind = part.get("text"), str(part.get("type"))[:40]
    if kind != "text" or not isinstance(text, str):
        raise _invalid(f"{path} is a part of type {kind!r}: the models here read texts.", path)
    # Anthropic's marker for a cache, which litellm and LangChain pass on, changes no answer.
    unknown = sorted(part.keys() - {"type", "text", "cache_control", "annotations"})
    if unknown:
        raise _invalid(f"{path} has the unknown member {unknown[0][:40]!r}.", path)
    return text


def _invalid(message: str, param: str) -> ApiError:
    return invalid(message, param, "invalid_value")
