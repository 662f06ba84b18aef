"""Chats as OpenAI's API has them: `{"messages": [{"role", "content"}, ...]}`."""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.data.formats.chat_messages import (
    BatchChat,
    BatchMessage,
    describe_roles,
    parse_messages,
    plain_messages,
)
from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import Keys, RecordFormat

NAME = "messages"
KEYS = Keys(("messages",), ("system", "schemaVersion"))


def parse(value: RawRecord) -> Conversation:
    """Parse a chat. Raises BadRecord."""
    return parse_messages(value, NAME)


def write(record: Record) -> JsonObject:
    """Return the chat with its system prompt as the first message."""
    assert isinstance(record, Conversation)
    system = [{"role": "system", "content": "\n".join(record.system)}] if record.system else []
    return {"messages": [*system, *plain_messages(record)]}


def make_batch_record(prompt: str, completion: str) -> BatchChat:
    """Return a chat of one question and one answer, for the fast path."""
    return BatchChat((BatchMessage("user", prompt), BatchMessage("assistant", completion)))


def describe(values: Sequence[RawRecord]) -> str:
    """Name the roles."""
    return f"messages with the roles {describe_roles(values)}"


FORMAT = RecordFormat(
    name=NAME,
    keys=KEYS,
    parse=parse,
    describe=describe,
    write=write,
    batch_record=make_batch_record,
)
