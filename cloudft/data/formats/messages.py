"""Chats as OpenAI's API has them: `{"messages": [{"role", "content"}, ...]}`."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.data.formats.chat_messages import (
    SYSTEM_KEYS,
    TOOL_KEYS,
    BatchChat,
    BatchMessage,
    chat_columns,
    parse_messages,
)
from cloudft.data.formats.chat_roles import describe_renamed_roles
from cloudft.data.formats.chat_writers import openai_messages, openai_tool, refuse_features
from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME = "messages"
KEYS = Keys(
    ("messages",),
    (*SYSTEM_KEYS, *TOOL_KEYS, "schemaVersion", "parallel_tool_calls"),
)
FEATURES = frozenset({"tools", "reasoning", "weights"})


def parse(value: RawRecord) -> Conversation:
    """Parse a chat. Raises BadRecord."""
    return parse_messages(value, NAME)


def write(record: Record) -> JsonObject:
    """Return the chat with its system prompt as the first message."""
    assert isinstance(record, Conversation)
    refuse_features(record, NAME, FEATURES)
    system = [{"role": "system", "content": "\n".join(record.system)}] if record.system else []
    value: JsonObject = {"messages": [*system, *openai_messages(record)]}
    if record.tools:
        value["tools"] = [openai_tool(tool) for tool in record.tools]
    return value


def recognizes(value: RawRecord) -> bool:
    """Return whether the messages are objects."""
    messages = value["messages"]
    return not isinstance(messages, list) or all(isinstance(m, dict) for m in messages[:2])


def make_batch_record(prompt: str, completion: str) -> BatchChat:
    """Return a chat of one question and one answer, for the fast path."""
    return BatchChat((BatchMessage("user", prompt), BatchMessage("assistant", completion)))


def describe(values: Sequence[RawRecord]) -> str:
    """Name the roles."""
    return f"messages with the roles {describe_renamed_roles(values, 'messages')}"


FORMAT = RecordFormat(
    name=NAME,
    title="chats (OpenAI's messages)",
    keys=KEYS,
    canonical_columns=chat_columns("messages"),
    parse=parse,
    recognizes=recognizes,
    describe=describe,
    write=write,
    batch_record=make_batch_record,
)
