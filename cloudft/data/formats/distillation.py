"""Prompts that a teacher answers: written as `converse`, whose last turn may be the user's.

Bedrock user guide, "Prepare your training datasets for distillation". Labeled records serve too:
their answer is used in place of the teacher's.
"""

from __future__ import annotations

from cloudft.data.formats import converse
from cloudft.data.formats.chat_messages import parse_messages
from cloudft.data.formats.record import Conversation, RawRecord, Turn, require_text
from cloudft.data.formats.record_format import RecordFormat

NAME = "distillation"
CHAT_KEYS = {"messages", "system", "schemaVersion"}


def parse_unanswered(value: RawRecord) -> Conversation | None:
    """Parse a prompt alone, or a chat with or without its last answer; None for other records."""
    prompt = value.get("prompt")
    if set(value) == {"prompt"} and isinstance(prompt, str):
        return Conversation(
            "prompt", (), (Turn("user", (require_text(prompt, "'prompt'", "prompt"),)),)
        )
    if "messages" in value and set(value) <= CHAT_KEYS:
        name = converse.NAME if converse.recognizes(value) else "messages"
        return parse_messages(value, name, allow_open_end=True)
    return None


FORMAT = RecordFormat(
    name=NAME,
    keys=converse.FORMAT.keys,
    parse=None,
    describe=converse.describe,
    write=converse.write,
    parse_unanswered=parse_unanswered,
    batch_record=converse.make_batch_record,
    is_convert_target=False,
)
