"""Records with `messages`: OpenAI's chat, Bedrock's converse, Claude's. Text only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cloudft.data.formats.record import BadRecord, Conversation, require_text

Turn = tuple[str, tuple[str, ...]]
_OTHER_ROLES = {"human": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}


def parse_messages(value: Mapping[str, Any], *, allow_open_end: bool = False) -> Conversation:
    """A chat record as what it says. Raises BadRecord.

    Turns alternate, a user's first, an assistant's last: what Bedrock asks for (facts 4.2). With
    `open_end` the last may be the user's: a question to be answered in training.
    """
    messages = value["messages"]
    if not isinstance(messages, list):
        raise BadRecord("WrongType", "'messages' is no list", "write a list", "messages")
    system = _texts(value["system"], "system") if value.get("system") is not None else ()
    turns = [_message(message, f"messages[{i}]") for i, message in enumerate(messages)]
    if turns and turns[0][0] == "system":
        if system:
            message = "two system prompts: 'system' and the first message"
            raise BadRecord("BadTurns", message, "keep one of the two", "system")
        system = turns.pop(0)[1]
    _check_order(turns, open_end=allow_open_end)
    return Conversation(_shape(value), system, tuple(turns))


def _shape(value: Mapping[str, Any]) -> str:
    """Which of the three: converse has blocks without a type, Claude a system text of its own."""
    blocks = [m["content"][0] for m in value["messages"] if isinstance(m["content"], list)]
    if "schemaVersion" in value or any("type" not in block for block in blocks):
        return "converse"
    return "claude-messages" if isinstance(value.get("system"), str) else "messages"


def _message(message: object, field: str) -> Turn:
    if not isinstance(message, dict):
        raise BadRecord("WrongType", f"{field} is no object", 'write {"role", "content"}', field)
    keys = {key for key, inner in message.items() if inner is not None}
    strange = sorted(keys - {"role", "content"})
    if strange:
        raise _strange_key(strange[0], field)
    for key in ("role", "content"):
        if key not in keys:
            raise BadRecord("WrongKeys", f"{field} has no {key!r}", f"add {key!r}", field)
    role = message["role"]
    if role not in ("system", "user", "assistant"):
        near = _OTHER_ROLES.get(role, "user or assistant") if isinstance(role, str) else "user"
        shown = f"{role!r}"[:60]
        raise BadRecord("BadTurns", f"{field} has the role {shown}", f"write {near}", field)
    return role, _texts(message["content"], f"{field}.content")


def _strange_key(key: str, field: str) -> BadRecord:
    if key in ("tool_calls", "function_call", "tool_call_id", "audio", "refusal"):
        message, fix = f"{field} has {key!r}: text only here", "take the record out"
        return BadRecord("UnsupportedContent", message, fix, field)
    message = f"{field} has the key {key[:40]!r}; a message has 'role' and 'content'"
    return BadRecord("WrongKeys", message, f"remove {key[:40]!r}", field)


def _texts(content: object, field: str) -> tuple[str, ...]:
    """Text, or a list of text blocks, as texts. Raises for images and for nothing but spaces."""
    if isinstance(content, str):
        return (require_text(content, field, field),)
    if not isinstance(content, list):
        message = f"{field} is neither text nor a list of text blocks"
        raise BadRecord("WrongType", message, "write text", field)
    if not content:
        raise BadRecord("EmptyField", f"{field} is an empty list", "give it text", field)
    return tuple(_block(block, f"{field}[{i}]") for i, block in enumerate(content))


def _block(block: object, field: str) -> str:
    if not isinstance(block, dict):
        raise BadRecord("WrongType", f"{field} is no block", 'write {"text": ...}', field)
    kind = block.get("type", "text")
    others = [key for key in block if key not in ("type", "text")]
    if kind != "text" or others:
        what = str(others[0] if others else kind)[:40]
        message = f"{field} is a block of kind {what!r}: text only here"
        raise BadRecord("UnsupportedContent", message, "take the record out", field)
    text = block.get("text")
    if not isinstance(text, str):
        raise BadRecord("WrongType", f"{field} has no text", 'write {"text": ...}', field)
    return require_text(text, field, field)


def _check_order(turns: list[Turn], *, open_end: bool) -> None:
    """User and assistant by turns, beginning and ending as they should."""
    fix = "let user and assistant alternate, the user first and the assistant last"
    for index, (role, _) in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if role != expected:
            message = f"turn {index + 1} is of the role {role!r} where {expected!r} is due"
            raise BadRecord("BadTurns", message, fix, "messages")
    if open_end and turns:
        return
    if len(turns) < 2 or len(turns) % 2:
        message = f"{len(turns)} turns: the last one must be the assistant's"
        raise BadRecord("BadTurns", message, fix, "messages")
