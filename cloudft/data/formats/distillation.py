"""Prompts that a teacher answers: written as `converse`, whose last turn may be the user's.

Bedrock user guide, "Prepare your training datasets for distillation". Labeled records serve too:
their answer is used in place of the teacher's.
"""

from __future__ import annotations

from dataclasses import replace

from cloudft.data.formats import converse
from cloudft.data.formats.chat_dialects import CHAT_KEYS
from cloudft.data.formats.chat_messages import SYSTEM_KEYS, TOOL_KEYS, parse_messages
from cloudft.data.formats.key_roles import may_be_left_out
from cloudft.data.formats.pairs import PROMPT_KEYS
from cloudft.data.formats.record import Conversation, RawRecord, Turn, require_text
from cloudft.data.formats.record_format import RecordFormat

NAME = "distillation"


def parse_unanswered(value: RawRecord) -> Conversation | None:
    """Parse a prompt alone, or a chat with or without its last answer; None for other records."""
    said = {key for key, item in value.items() if not may_be_left_out(key, item)}
    chats = [key for key in ("messages", *CHAT_KEYS) if isinstance(value.get(key), list)]
    if len(chats) == 1 and said <= {chats[0], *SYSTEM_KEYS, *TOOL_KEYS}:
        return _parse_chat(value, chats[0], said)
    prompts = [key for key in PROMPT_KEYS if key in said]
    if len(prompts) == 1 and said <= {prompts[0], *SYSTEM_KEYS}:
        return _parse_prompt(value, prompts[0], said)
    return None


def _parse_chat(value: RawRecord, key: str, said: set[str]) -> Conversation:
    is_converse = key == "messages" and converse.recognizes(value)
    name = converse.NAME if is_converse else "messages"
    record = parse_messages(value, name, allow_open_end=True, key=key)
    left_out = _left_out(value, {*said, "schemaVersion"})
    return replace(record, left_out=(*record.left_out, *left_out))


def _parse_prompt(value: RawRecord, key: str, said: set[str]) -> Conversation | None:
    prompt = value[key]
    if not isinstance(prompt, str):
        return None
    systems = [str(value[name]) for name in SYSTEM_KEYS if name in said]
    turns = (Turn("user", (require_text(prompt, repr(key), key),)),)
    return Conversation("prompt", tuple(systems), turns, left_out=_left_out(value, said))


def _left_out(value: RawRecord, said: set[str]) -> tuple[str, ...]:
    return tuple([key for key, item in value.items() if item is not None and key not in said])


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
