"""Chats as Anthropic's API has them: `messages` as OpenAI's, and `system` as one text beside it.

Bedrock user guide, "Prepare your training datasets for fine-tuning" (Claude 3 Haiku).
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.data.formats.chat_messages import chat_columns, parse_messages
from cloudft.data.formats.chat_roles import describe_renamed_roles
from cloudft.data.formats.chat_writers import plain_messages, require_texts_only
from cloudft.data.formats.messages import KEYS, make_batch_record
from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import RecordFormat

NAME = "claude-messages"


def recognizes(value: RawRecord) -> bool:
    """Return whether the system prompt is a text of its own."""
    return isinstance(value.get("system"), str)


def parse(value: RawRecord) -> Conversation:
    """Parse a chat. Raises BadRecord."""
    return parse_messages(value, NAME)


def write(record: Record) -> JsonObject:
    """Return the chat with its system prompt beside the messages."""
    assert isinstance(record, Conversation)
    require_texts_only(record, NAME)
    value: JsonObject = {"system": "\n".join(record.system)} if record.system else {}
    return {**value, "messages": plain_messages(record)}


def describe(values: Sequence[RawRecord]) -> str:
    """Name the system text and the roles."""
    roles = describe_renamed_roles(values, "messages")
    return f"messages with the roles {roles}, and 'system' as a text"


FORMAT = RecordFormat(
    name=NAME,
    title="Claude's chats (Anthropic's messages)",
    keys=KEYS,
    canonical_columns=chat_columns("messages"),
    parse=parse,
    describe=describe,
    write=write,
    recognizes=recognizes,
    batch_record=make_batch_record,
)
