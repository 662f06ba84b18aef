"""Chats under other keys than `messages`: ShareGPT's, Gemini's, trl's prompt and completion."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from cloudft.data.formats.chat_messages import (
    SYSTEM_KEYS,
    TOOL_KEYS,
    chat_columns,
    is_message_list,
    parse_messages,
)
from cloudft.data.formats.chat_roles import describe_renamed_roles
from cloudft.data.formats.record import BadRecord, Conversation, RawRecord
from cloudft.data.formats.record_format import Keys, RecordFormat

CHAT_KEYS = {
    "conversations": "ShareGPT",
    "conversation": "ShareGPT",
    "dialog": "a chat under 'dialog'",
    "dialogue": "a chat under 'dialogue'",
    "chat": "a chat under 'chat'",
    "turns": "a chat under 'turns'",
    "contents": "Gemini's contents",
}
"""Keys that hold a list of messages, and what tools call records with them."""


def _make_chat_format(key: str, title: str) -> RecordFormat:
    def describe(values: Sequence[RawRecord]) -> str:
        return f"{key!r} with the roles {describe_renamed_roles(values, key)}"

    def recognizes(value: RawRecord) -> bool:
        return is_message_list(value[key])

    return RecordFormat(
        name=_format_name(key),
        title=title,
        keys=Keys((key,), (*SYSTEM_KEYS, *TOOL_KEYS)),
        parse=partial(_parse, key),
        recognizes=recognizes,
        describe=describe,
        rewrite_as="messages",
        canonical_columns=chat_columns(key),
    )


def _format_name(key: str) -> str:
    names = {"contents": "gemini", "conversations": "sharegpt"}
    return names.get(key, f"sharegpt-{key}")


def _parse(key: str, value: RawRecord) -> Conversation:
    return parse_messages(value, _format_name(key), key=key)


def _is_trl(value: RawRecord) -> bool:
    """Return whether prompt and completion are lists of messages, or one is and one a text.

    The first is trl's conversational form.
    """
    parts = [value["prompt"], value["completion"]]
    are_chats = [is_message_list(part) for part in parts]
    return any(are_chats) and all(
        is_chat or isinstance(part, str) for is_chat, part in zip(are_chats, parts, strict=True)
    )


def _parse_trl(value: RawRecord) -> Conversation:
    if value["completion"] in ([], "", None):
        fix = "give it an answer, or take the record out"
        raise BadRecord("EmptyField", "'completion' is empty", fix, "completion")
    if value["prompt"] is None:
        fix = "give it a prompt, or take the record out"
        raise BadRecord("EmptyField", "'prompt' is empty", fix, "prompt")
    rest = {key: item for key, item in value.items() if key not in ("prompt", "completion")}
    return parse_messages({**rest, "messages": _trl_messages(value)}, "trl-chat")


def _trl_messages(value: RawRecord) -> list[object]:
    messages: list[object] = []
    for key, role in (("prompt", "user"), ("completion", "assistant")):
        part = value[key]
        messages += part if isinstance(part, list) else [{"role": role, "content": part}]
    return messages


def _describe_trl(values: Sequence[RawRecord]) -> str:
    chats = [{"messages": _trl_messages(value)} for value in values if _is_trl(value)]
    return f"'prompt' and 'completion' as messages: {describe_renamed_roles(chats, 'messages')}"


FORMATS = (
    *(_make_chat_format(key, title) for key, title in CHAT_KEYS.items()),
    RecordFormat(
        name="trl-chat",
        title="trl's conversational prompt and completion",
        keys=Keys(("prompt", "completion"), (*SYSTEM_KEYS, *TOOL_KEYS)),
        parse=_parse_trl,
        recognizes=_is_trl,
        describe=_describe_trl,
        rewrite_as="messages",
        canonical_columns={"prompt": "prompt", "completion": "completion", "tools": "tools"},
    ),
)
