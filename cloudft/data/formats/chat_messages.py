"""What the chat formats share: OpenAI's `messages`, Bedrock's `converse`, Claude's, ShareGPT's, ...

They differ in the names of keys and roles and in the blocks of a message (chat_blocks.py); one
parser reads them all into turns.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from cloudft.data.formats.chat_blocks import (
    MEDIA_KEYS,
    is_result_block,
    make_result,
    parse_block,
    parse_call,
    parse_content,
    parse_tools,
)
from cloudft.data.formats.chat_roles import ROLE_ALIASES, ROLE_KEYS
from cloudft.data.formats.chat_turns import ChatMessage, check_order, name_calls, to_turns
from cloudft.data.formats.columns_line import columns_line
from cloudft.data.formats.key_roles import may_be_left_out
from cloudft.data.formats.record import (
    BadRecord,
    Block,
    Conversation,
    JsonObject,
    Media,
    RawRecord,
    Reasoning,
    ToolCall,
    ToolResult,
    Turn,
)

CONTENT_KEYS = ("content", "value", "parts", "message", "text")
REASONING_KEYS = ("reasoning_content", "reasoning", "thinking")
SYSTEM_KEYS = ("system", "system_prompt", "systemInstruction", "system_instruction")
TOOL_KEYS = ("tools", "functions", "toolConfig")
TURN_KEYS = {
    *ROLE_KEYS,
    *CONTENT_KEYS,
    *REASONING_KEYS,
    *("weight", "loss", "train", "tool_calls", "function_call", "tool_call_id", "name", "refusal"),
}
WEIGHT_KEYS = ("weight", "loss", "train")
"""Whether a turn is trained on: OpenAI's, ms-swift's and axolotl's name of it."""
PAIR_KEYS = (("input", "output"), ("human", "assistant"), ("user", "assistant"))
"""Keys of a question and its answer where these are one entry of a list (XTuner's, MOSS's)."""
_PLAIN_ROLES = frozenset({"user", "assistant", "system"})


def chat_columns(key: str) -> dict[str, str]:
    """Return the names in `data.columns` of a chat's keys."""
    further = {**dict.fromkeys(SYSTEM_KEYS, "system"), **dict.fromkeys(TOOL_KEYS, "tools")}
    return {key: "messages", **further}


class BatchMessage(msgspec.Struct, gc=False):
    """One message as msgspec encodes it, for the fast path. `content` is a text or its blocks."""

    role: str
    content: object


class BatchChat(msgspec.Struct, gc=False):
    """A chat of one question and one answer, for the fast path."""

    messages: tuple[BatchMessage, BatchMessage]


def parse_messages(
    value: RawRecord, format: str, *, allow_open_end: bool = False, key: str = "messages"
) -> Conversation:
    """Parse a chat record of that format. Raises BadRecord.

    Turns alternate, the user's first and the assistant's last: Bedrock requires it (user guide,
    "Prepare your training datasets for fine-tuning"). Tool results count as the user's. With
    `allow_open_end` the last may be the user's: a prompt that is answered in training.
    """
    left_out: dict[str, None] = {}
    parsed = [
        _parse_message(message, f"{key}[{index}]", left_out)
        for index, message in enumerate(_list_messages(value[key], key))
    ]
    system = _system_texts(value, key)
    if parsed and parsed[0].role == "system":
        first = parsed.pop(0)
        texts = _require_texts(first.content, f"{key}[0]")
        if system and texts not in ((), system):
            message = "two system prompts: 'system' and the first message"
            raise BadRecord("BadTurns", message, "keep one of the two", "system")
        system = system or texts
    turns = name_calls(to_turns(parsed, key))
    check_order(turns, key, allow_open_end=allow_open_end)
    if not allow_open_end and not any(turn.is_learned for turn in turns[1::2]):
        message = "every answer has the weight 0, so nothing of the record would be learned"
        fix = "give an answer the weight 1, or take the record out"
        raise BadRecord("WrongWeight", message, fix, key)
    tools = [tool for name in TOOL_KEYS if name in value for tool in parse_tools(value[name], name)]
    return Conversation(format, system, turns, tools=tuple(tools), left_out=tuple(left_out))


def is_message_list(value: object) -> bool:
    """Return whether a value is a list of messages, or one as JSON text, as CSV cells hold it."""
    if isinstance(value, str):
        value = _decode_list(value)
    return isinstance(value, list) and all(isinstance(message, dict) for message in value[:2])


def parse_turns(value: object, key: str) -> tuple[Turn, ...]:
    """Return the turns of a list of messages, whose order is not checked. Raises BadRecord."""
    parsed = [
        _parse_message(m, f"{key}[{i}]", {}) for i, m in enumerate(_list_messages(value, key))
    ]
    return name_calls(to_turns(parsed, key))


def _decode_list(text: str) -> object:
    import json

    try:
        return json.loads(text) if text.lstrip().startswith("[") else None
    except ValueError:
        return None


def _list_messages(value: object, key: str) -> list[object]:
    """Return the messages; those of a list as JSON text, and two for each pair of a list."""
    if isinstance(value, str):
        decoded = _decode_list(value)
        if not isinstance(decoded, list):
            message = f"{key!r} is text, but no list in JSON"
            fix = "write the list as JSON: json.dumps(messages) in Python, not str(messages)"
            raise BadRecord("WrongType", message, fix, key)
        value = decoded
    if not isinstance(value, list):
        raise BadRecord("WrongType", f"{key!r} is no list", "write a list of messages", key)
    if value and isinstance(value[0], dict) and not any(k in value[0] for k in ROLE_KEYS):
        for pair in PAIR_KEYS:
            if all(isinstance(entry, dict) and set(pair) <= set(entry) for entry in value):
                return [message for entry in value for message in _split_pair(entry, pair)]
    return value


def _split_pair(entry: JsonObject, pair: tuple[str, str]) -> list[JsonObject]:
    system = entry.get("system")
    messages: list[JsonObject] = [{"role": "system", "content": system}] if system else []
    question, answer = ({"content": entry[key]} for key in pair)
    further = {key: item for key, item in entry.items() if key not in (*pair, "system")}
    return [*messages, {"role": "user", **question}, {"role": "assistant", **answer, **further}]


def _system_texts(value: RawRecord, key: str) -> tuple[str, ...]:
    """Return the system prompt beside the messages. Empty, blank and null ones are none."""
    prompts: dict[str, tuple[str, ...]] = {}
    for name in SYSTEM_KEYS:
        if name in value and (texts := _parse_system(value[name], name)):
            prompts[name] = texts
    if len(set(prompts.values())) > 1:
        message = f"two system prompts: {' and '.join(map(repr, prompts))}"
        tools = [("tools", name) for name in TOOL_KEYS if value.get(name)][:1]
        columns = {"messages": key, **dict(tools)}
        lines = [columns_line({**columns, "system": name}) for name in prompts]
        raise BadRecord("TwoSystemPrompts", message, " or ".join(lines), list(prompts)[1])
    return next(iter(prompts.values()), ())


def _parse_system(system: object, field: str) -> tuple[str, ...]:
    if plain := _plain_texts(system):
        return plain
    if isinstance(system, dict) and (part := _get_content(system)) is not None:
        system = part  # Gemini's: {"role", "parts"}
    if system in (None, [], {}) or (isinstance(system, str) and not system.strip()):
        return ()
    texts = [
        text
        for text in (system if isinstance(system, list) else [system])
        if text is not None and not _is_blank_block(text)
    ]
    return _require_texts(parse_content(texts, field), field) if texts else ()


def _get_content(message: JsonObject) -> object:
    """Return the content of a message, under whichever key has one."""
    return next((message[key] for key in CONTENT_KEYS if message.get(key) is not None), None)


def _require_texts(blocks: Sequence[Block], field: str) -> tuple[str, ...]:
    """Return the blocks of a system prompt. Raises BadRecord for one that is no text."""
    texts = [block for block in blocks if isinstance(block, str)]
    if len(texts) < len(blocks):
        message = f"{field} has more than texts: a system prompt is text alone"
        fix = "move the rest into the user's turn, or take the record out"
        raise BadRecord("UnsupportedContent", message, fix, field)
    return tuple(texts)


def _is_blank_block(block: object) -> bool:
    text = block.get("text") if isinstance(block, dict) else block
    return isinstance(text, str) and not text.strip()


def _parse_message(message: object, field: str, left_out: dict[str, None]) -> ChatMessage:
    if not isinstance(message, dict):
        raise BadRecord("WrongType", f"{field} is no object", 'write {"role", "content"}', field)
    role_key = next((key for key in ROLE_KEYS if message.get(key) is not None), None)
    if role_key is None:
        raise BadRecord("WrongKeys", f"{field} has no 'role'", "add 'role'", field)
    written = message[role_key]
    role = ROLE_ALIASES.get(written.lower()) if isinstance(written, str) else None
    if role is None:
        shown = f"{written!r}"[:60]
        fix = f"write user or assistant; known roles: {', '.join(ROLE_ALIASES)}"
        raise BadRecord("BadTurns", f"{field} has the role {shown}", fix, field)
    if len(message) == 2 and role in _PLAIN_ROLES and "content" in message:
        texts = _plain_texts(message["content"])
        if texts:  # most messages are so
            return ChatMessage(role, texts, True, written)
    return _parse_rich_message(message, role, written, field, left_out)


def _plain_texts(content: object) -> tuple[str, ...]:
    """Return the texts of a text, or of a list of blocks with a text alone; () for all else."""
    if isinstance(content, str):
        return (content,) if content.strip() else ()
    if not isinstance(content, list):
        return ()
    texts = []
    for block in content:
        text = block.get("text") if isinstance(block, dict) and len(block) == 1 else None
        if not isinstance(text, str) or not text.strip():
            return ()
        texts.append(text)
    return tuple(texts)


def _parse_rich_message(
    message: JsonObject, role: str, written: str, field: str, left_out: dict[str, None]
) -> ChatMessage:
    """Parse a message with more than a role and a text."""
    for name, item in message.items():
        if item is not None and name not in TURN_KEYS:
            _take_extra_key(name, item, field, left_out)
    content_key = next((key for key in CONTENT_KEYS if message.get(key) is not None), None)
    content = message[content_key] if content_key else None
    calls = _parse_calls(message, role, content, field)
    if role == "call":
        return ChatMessage("assistant", calls, True, written)
    where = f"{field}.{content_key or 'content'}"
    if role == "tool":
        return ChatMessage("tool", _parse_tool_message(message, content, where), True, written)
    _refuse_refusal(message, field)
    media = _parse_media(message)
    has_text = content not in (None, []) and not (isinstance(content, str) and not content.strip())
    if has_text:
        blocks = parse_content(content, where)
    elif calls or media or role == "system":
        blocks = ()
    elif content_key is None:
        raise BadRecord("WrongKeys", f"{field} has no 'content'", "add 'content'", field)
    else:
        blocks = parse_content(content, where)  # raises: it is blank
    everything = (*_parse_reasoning(message), *blocks, *media, *calls)
    return ChatMessage(role, everything, _is_learned(message, role, field), written)


def _parse_reasoning(message: JsonObject) -> tuple[Reasoning, ...]:
    thoughts = [message.get(key) for key in REASONING_KEYS]
    return tuple([Reasoning(text) for text in thoughts if isinstance(text, str) and text.strip()])


def _parse_media(message: JsonObject) -> tuple[Media, ...]:
    return tuple(
        [
            Media(kind, {key: message[key]})
            for key, kind in MEDIA_KEYS.items()
            if message.get(key) not in (None, [], "")
        ]
    )


def _refuse_refusal(message: JsonObject, field: str) -> None:
    if isinstance(message.get("refusal"), str) and message["refusal"]:
        fix = "take the record out, or move the refusal into 'content'"
        raise BadRecord("UnsupportedContent", f"{field} has a 'refusal'", fix, field)


def _take_extra_key(name: str, item: object, field: str, left_out: dict[str, None]) -> None:
    """Note a key of a message that says nothing. Raises BadRecord for one that may."""
    if name in MEDIA_KEYS or item in ("", [], {}):
        return
    if not may_be_left_out(name, item):
        message = f"{field} has the key {name[:40]!r}, which may carry meaning"
        fix = f"move what {name[:40]!r} says into 'content', or take the key out"
        raise BadRecord("UnusedKeys", message, fix, f"{field}.{name}")
    left_out[f"message.{name}"] = None


def _is_learned(message: JsonObject, role: str, field: str) -> bool:
    """Return whether a turn carries loss: `weight` is 0 or 1, as in OpenAI's API."""
    weight = next((message[key] for key in WEIGHT_KEYS if message.get(key) is not None), None)
    if weight is None or role != "assistant":
        return True
    if weight not in (0, 1):
        fix = "write 0 (context alone) or 1 (trained on)"
        raise BadRecord("WrongWeight", f"{field} has the weight {weight!r:.20}", fix, field)
    return bool(weight)


def _parse_calls(
    message: JsonObject, role: str, content: object, field: str
) -> tuple[ToolCall, ...]:
    """Return the tool calls beside the content, or those that are a `call` message's content."""
    if role == "call":
        import json

        try:
            value = json.loads(content) if isinstance(content, str) else content
        except ValueError:
            value = None
        return tuple(
            [parse_call(call, field) for call in (value if isinstance(value, list) else [value])]
        )
    calls = message.get("tool_calls") or []
    if not isinstance(calls, list):
        calls = [calls]
    parsed = []
    for index, call in enumerate(calls):
        where = f"{field}.tool_calls[{index}]"
        inner = call.get("function", call) if isinstance(call, dict) else call
        if isinstance(inner, dict) and isinstance(call, dict):
            inner = {**inner, "id": call.get("id")}
        parsed.append(parse_call(inner, where))
    if isinstance(message.get("function_call"), dict):
        parsed.append(parse_call(message["function_call"], f"{field}.function_call"))
    return tuple(parsed)


def _parse_tool_message(message: JsonObject, content: object, field: str) -> tuple[ToolResult, ...]:
    """Return the result of a tool's message: its content, or the result blocks that it holds."""
    blocks = content if isinstance(content, list) else [content]
    if blocks and all(isinstance(block, dict) and is_result_block(block) for block in blocks):
        parsed = [parse_block(block, field) for block in blocks]
        return tuple([block for block in parsed if isinstance(block, ToolResult)])
    identifier, name = message.get("tool_call_id"), message.get("name")
    result = make_result(
        content,
        field,
        identifier if isinstance(identifier, str) else "",
        name if isinstance(name, str) else "",
    )
    return (result,)
