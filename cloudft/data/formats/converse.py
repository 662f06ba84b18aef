"""Bedrock's conversations (`bedrock-conversation-2024`): content as a list of `{"text"}` blocks.

Bedrock user guide, "Prepare your training datasets for fine-tuning" (Amazon Nova).
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloudft.data.formats.chat_messages import BatchMessage, chat_columns, parse_messages
from cloudft.data.formats.chat_roles import describe_renamed_roles
from cloudft.data.formats.chat_writers import converse_message, converse_tool_config
from cloudft.data.formats.messages import KEYS
from cloudft.data.formats.record import Conversation, JsonObject, RawRecord, Record
from cloudft.data.formats.record_format import RecordFormat

NAME = "converse"
SCHEMA_VERSION = "bedrock-conversation-2024"


class _TextBlock(msgspec.Struct, gc=False):
    text: str


class _BatchRecord(msgspec.Struct, gc=False):
    schemaVersion: str
    messages: tuple[BatchMessage, BatchMessage]


def recognizes(value: RawRecord) -> bool:
    """Return whether a record has `schemaVersion`, or a first block without OpenAI's `type`."""
    if value.get("schemaVersion") is not None or value.get("toolConfig") is not None:
        return True
    messages = value.get("messages")
    contents = (
        [m.get("content") for m in messages if isinstance(m, dict)]
        if isinstance(messages, list)
        else []
    )
    blocks = [content[0] for content in contents if isinstance(content, list) and content]
    return any(isinstance(block, dict) and block.get("type") is None for block in blocks)


def parse(value: RawRecord) -> Conversation:
    """Parse a conversation. Raises BadRecord."""
    return parse_messages(value, NAME)


def write(record: Record) -> JsonObject:
    """Return the conversation as blocks, with the schema's version."""
    assert isinstance(record, Conversation)
    value: JsonObject = {"schemaVersion": SCHEMA_VERSION}
    if record.system:
        value["system"] = [{"text": text} for text in record.system]
    value["messages"] = [converse_message(turn) for turn in record.turns]
    if record.tools:
        value["toolConfig"] = converse_tool_config(record.tools)
    return value


def make_batch_record(prompt: str, completion: str) -> _BatchRecord:
    """Return a conversation of one question and one answer, for the fast path."""
    user = BatchMessage("user", (_TextBlock(prompt),))
    assistant = BatchMessage("assistant", (_TextBlock(completion),))
    return _BatchRecord(SCHEMA_VERSION, (user, assistant))


def describe(values: Sequence[RawRecord]) -> str:
    """Name the blocks and the roles."""
    return f"messages of text blocks with the roles {describe_renamed_roles(values, 'messages')}"


FORMAT = RecordFormat(
    name=NAME,
    title="Bedrock conversations (Converse)",
    keys=KEYS,
    canonical_columns=chat_columns("messages"),
    parse=parse,
    describe=describe,
    write=write,
    recognizes=recognizes,
    batch_record=make_batch_record,
)
