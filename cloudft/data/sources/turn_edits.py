"""Edit the turns of a chat so that they alternate, on demand: cut, join or move some of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

from cloudft.data.formats.chat_messages import CONTENT_KEYS, SYSTEM_KEYS
from cloudft.data.formats.chat_roles import ROLE_ALIASES, ROLE_KEYS
from cloudft.data.formats.key_roles import may_be_left_out
from cloudft.data.formats.recognizer import match_format
from cloudft.data.formats.record import JsonObject

TurnEdit = Literal["cut", "join", "move"]
TURN_EDITS: tuple[TurnEdit, ...] = get_args(TurnEdit)
"""`cut` drops the user's turns at the end and the assistant's at the beginning, `join` joins turns
of one role that follow each other, `move` makes the assistant's first turns part of the system
prompt."""
_BETWEEN = "\n\n"
_CLAUDE, _CONVERSE, _GEMINI, _TRL = "claude-messages", "converse", "gemini", "trl-chat"


def edit_turns(
    value: JsonObject, edits: Sequence[TurnEdit], columns: Mapping[str, str]
) -> tuple[TurnEdit, ...]:
    """Change the turns of a chat in place; return the edits that did so. Other records stay."""
    found = [value.get(key) for key in _find_message_keys(value, columns)]
    lists = [part for part in found if isinstance(part, list)]
    messages: list[JsonObject] = [message for part in lists for message in part]
    if len(lists) < len(found) or not all(isinstance(message, dict) for message in messages):
        return ()
    applied: list[TurnEdit] = []
    if "move" in edits and _move_opening(value, messages, columns):
        applied.append("move")
    if "cut" in edits and _cut(messages):
        applied.append("cut")
    if "join" in edits and _join(messages):
        applied.append("join")
    _write_back(messages, lists)
    return tuple(applied)


def _write_back(messages: list[JsonObject], lists: Sequence[list[JsonObject]]) -> None:
    """Put the messages that stay into their lists, one or two; new ones into the first."""
    of_second = {id(message) for part in lists[1:] for message in part}
    for number, part in enumerate(lists):
        part[:] = [message for message in messages if (id(message) in of_second) == bool(number)]


def _find_message_keys(value: JsonObject, columns: Mapping[str, str]) -> tuple[str, ...]:
    """Return the keys under which a chat has its messages; none for another record."""
    named = columns.get("messages")
    if named is not None and named in value:
        return (named,)
    format = match_format(value)
    if format is None:
        return ()
    if format.name == _TRL:
        return format.keys.required
    names = format.canonical_columns
    return tuple([key for key in format.keys.required if names.get(key) == "messages"])


def _role(message: JsonObject) -> str | None:
    written = next((message[key] for key in ROLE_KEYS if message.get(key) is not None), None)
    return ROLE_ALIASES.get(written.lower()) if isinstance(written, str) else None


def _first_turn(messages: Sequence[JsonObject]) -> int:
    """Return the index of the first message behind the system message."""
    return 1 if messages and _role(messages[0]) == "system" else 0


def _cut(messages: list[JsonObject]) -> bool:
    """Drop what the user says last, and what the assistant says first."""
    before = len(messages)
    first = _first_turn(messages)
    while len(messages) > first and _role(messages[-1]) in ("user", "tool"):
        messages.pop()
    while len(messages) > first and _role(messages[first]) in ("assistant", "call"):
        del messages[first]
    return len(messages) < before


def _join(messages: list[JsonObject]) -> bool:
    """Join messages of one role that follow each other, where they are nothing but texts."""
    before = len(messages)
    at = 1
    while at < len(messages):
        if _join_two(messages[at - 1], messages[at]):
            del messages[at]
        else:
            at += 1
    return len(messages) < before


def _join_two(first: JsonObject, second: JsonObject) -> bool:
    """Make the first message both; False if they have two roles, or more than a text each."""
    role = _role(first)
    content_key = _content_key(first)
    if role not in ("user", "assistant") or role != _role(second) or content_key is None:
        return False
    for key in {*first, *second} - {content_key, *ROLE_KEYS}:
        if first.get(key) != second.get(key) and not all(
            may_be_left_out(key, message.get(key)) for message in (first, second)
        ):
            return False
    content = _join_contents(first[content_key], second.get(content_key))
    if content is not None:
        first[content_key] = content
    return content is not None


def _content_key(message: JsonObject) -> str | None:
    return next((key for key in CONTENT_KEYS if message.get(key) is not None), None)


def _join_contents(first: object, second: object) -> object:
    """Return two contents as one; None if one is a text and the other a list."""
    if isinstance(first, str) and isinstance(second, str):
        return first + _BETWEEN + second
    if isinstance(first, list) and isinstance(second, list):
        return [*first, *second]
    return None


def _move_opening(
    value: JsonObject, messages: list[JsonObject], columns: Mapping[str, str]
) -> bool:
    """Move what the assistant says first into the system prompt, where it is a text."""
    moved = False
    while True:
        first = _first_turn(messages)
        if first == len(messages) or _role(messages[first]) != "assistant":
            return moved
        content_key = _content_key(messages[first])
        text = _plain_text(messages[first][content_key]) if content_key else None
        has_more = any(messages[first].get(key) for key in ("tool_calls", "function_call"))
        if content_key is None or text is None or has_more:
            return moved
        opening = messages.pop(first)
        _add_to_system(value, messages, text, opening, columns)
        moved = True


def _plain_text(content: object) -> str | None:
    """Return a content that is nothing but text; None for another."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [block.get("text") if isinstance(block, dict) else block for block in content]
    if not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(map(str, texts))


def _add_to_system(
    value: JsonObject,
    messages: list[JsonObject],
    text: str,
    opening: JsonObject,
    columns: Mapping[str, str],
) -> None:
    """Add a text to the system prompt, where the record has it or where its format has it."""
    if _first_turn(messages):
        key = _content_key(messages[0]) or "content"
        messages[0][key] = _extend(messages[0].get(key), text)
        return
    names = (columns["system"],) if "system" in columns else () if columns else SYSTEM_KEYS
    for key in names:
        if value.get(key) not in (None, "", [], {}):
            value[key] = _extend(value[key], text)
            return
    format = None if columns else match_format(value)
    name = format.name if format else ""
    if name == _CONVERSE:
        value["system"] = [{"text": text}]
    elif name == _CLAUDE:
        value["system"] = text
    elif name == _GEMINI:
        value["systemInstruction"] = {"parts": [{"text": text}]}
    else:
        role_key = next(key for key in ROLE_KEYS if opening.get(key) is not None)
        messages.insert(0, {role_key: "system", _content_key(opening) or "content": text})


def _extend(system: object, text: str) -> object:
    """Return a system prompt with a further text, in the form that it has."""
    if isinstance(system, list):
        like = system[-1] if system else {}
        if not isinstance(like, dict):
            return [*system, text]
        return [*system, {**{k: v for k, v in like.items() if k == "type"}, "text": text}]
    if isinstance(system, dict):
        key = _content_key(system) or "parts"
        return {**system, key: _extend(system.get(key, []), text)}
    return f"{system}{_BETWEEN}{text}" if isinstance(system, str) and system.strip() else text
