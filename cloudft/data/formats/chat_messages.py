"""What the three chat formats share: OpenAI's `messages`, Bedrock's `converse`, Claude's.

They have the same keys and differ in what these hold; one parser reads them all. Only text is
supported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from cloudft.data.formats.record import BadRecord, Conversation, JsonObject, RawRecord, require_text

Turn = tuple[str, tuple[str, ...]]
ROLE_ALIASES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
"""Names that other tools give the roles."""
_ROLES_SEEN = 100


class BatchMessage(msgspec.Struct, gc=False):
    """One message as msgspec encodes it, for the fast path. `content` is a text or its blocks."""

    role: str
    content: object


class BatchChat(msgspec.Struct, gc=False):
    """A chat of one question and one answer, for the fast path."""

    messages: tuple[BatchMessage, BatchMessage]


def parse_messages(value: RawRecord, format: str, *, allow_open_end: bool = False) -> Conversation:
    """Parse a chat record of that format. Raises BadRecord.

    Turns alternate, the user's first and the assistant's last: Bedrock requires it (facts 4.2).
    With `allow_open_end` the last may be the user's: a prompt that is answered in training.
    """
    messages = value["messages"]
    if not isinstance(messages, list):
        raise BadRecord("WrongType", "'messages' is no list", "write a list", "messages")
    system = _parse_texts(value["system"], "system") if value.get("system") is not None else ()
    turns = [_parse_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    if turns and turns[0][0] == "system":
        if system:
            message = "two system prompts: 'system' and the first message"
            raise BadRecord("BadTurns", message, "keep one of the two", "system")
        system = turns.pop(0)[1]
    _check_order(turns, allow_open_end=allow_open_end)
    return Conversation(format, system, tuple(turns))


def plain_messages(record: Conversation) -> list[JsonObject]:
    """Return the turns as messages whose content is one text each."""
    return [{"role": role, "content": "\n".join(parts)} for role, parts in record.turns]


def describe_roles(values: Sequence[RawRecord]) -> str:
    """Return the roles of some records' messages, in the order in which they appear."""
    roles: dict[str, None] = {}
    for value in values[:_ROLES_SEEN]:
        messages = value.get("messages")
        for message in messages if isinstance(messages, list) else ():
            if isinstance(message, dict) and isinstance(message.get("role"), str):
                roles[message["role"]] = None
    return ", ".join(roles)


def _parse_message(message: object, field: str) -> Turn:
    if not isinstance(message, dict):
        raise BadRecord("WrongType", f"{field} is no object", 'write {"role", "content"}', field)
    keys = {key for key, inner in message.items() if inner is not None}
    unknown = sorted(keys - {"role", "content"})
    if unknown:
        raise _unknown_key(unknown[0], field)
    for key in ("role", "content"):
        if key not in keys:
            raise BadRecord("WrongKeys", f"{field} has no {key!r}", f"add {key!r}", field)
    role = message["role"]
    if role not in ("system", "user", "assistant"):
        usual = ROLE_ALIASES.get(role, "user or assistant") if isinstance(role, str) else "user"
        shown = f"{role!r}"[:60]
        raise BadRecord("BadTurns", f"{field} has the role {shown}", f"write {usual}", field)
    return role, _parse_texts(message["content"], f"{field}.content")


def _unknown_key(key: str, field: str) -> BadRecord:
    if key in ("tool_calls", "function_call", "tool_call_id", "audio", "refusal"):
        message, fix = f"{field} has {key!r}; only text is supported", "take the record out"
        return BadRecord("UnsupportedContent", message, fix, field)
    message = f"{field} has the key {key[:40]!r}; a message has 'role' and 'content'"
    return BadRecord("WrongKeys", message, f"remove {key[:40]!r}", field)


def _parse_texts(content: object, field: str) -> tuple[str, ...]:
    """Return a text, or a list of text blocks, as texts. Raises for images and for blank text."""
    if isinstance(content, str):
        return (require_text(content, field, field),)
    if not isinstance(content, list):
        message = f"{field} is neither text nor a list of text blocks"
        raise BadRecord("WrongType", message, "write text", field)
    if not content:
        raise BadRecord("EmptyField", f"{field} is an empty list", "give it text", field)
    return tuple(_parse_block(block, f"{field}[{i}]") for i, block in enumerate(content))


def _parse_block(block: Any, field: str) -> str:
    if not isinstance(block, dict):
        raise BadRecord("WrongType", f"{field} is no block", 'write {"text": ...}', field)
    kind = block.get("type", "text")
    others = [key for key in block if key not in ("type", "text")]
    if kind != "text" or others:
        what = str(others[0] if others else kind)[:40]
        message = f"{field} is a block of type {what!r}; only text is supported"
        raise BadRecord("UnsupportedContent", message, "take the record out", field)
    text = block.get("text")
    if not isinstance(text, str):
        raise BadRecord("WrongType", f"{field} has no text", 'write {"text": ...}', field)
    return require_text(text, field, field)


def _check_order(turns: list[Turn], *, allow_open_end: bool) -> None:
    """Raise BadRecord unless user and assistant alternate, and begin and end as they should."""
    fix = "let user and assistant alternate, the user first and the assistant last"
    for index, (role, _) in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if role != expected:
            message = f"turn {index + 1} has the role {role!r}; expected {expected!r}"
            raise BadRecord("BadTurns", message, fix, "messages")
    if allow_open_end and turns:
        return
    if len(turns) < 2 or len(turns) % 2:
        message = f"{len(turns)} turns: the last one must be the assistant's"
        raise BadRecord("BadTurns", message, fix, "messages")
