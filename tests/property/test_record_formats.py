"""Records of every format: no key that carries meaning is lost, and equal meaning stages alike."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import (
    BadRecord,
    Block,
    Conversation,
    Document,
    Record,
    Tool,
    ToolCall,
    ToolResult,
    Turn,
)
from cloudft.data.formats.record_format import RecordFormat
from cloudft.data.formats.registry import all_formats, encode_record

QUESTION, ANSWER = "Where does the ferry leave?", "From pier four."
CHAT = [{"role": "user", "content": QUESTION}, {"role": "assistant", "content": ANSWER}]
RECORDS: dict[str, Any] = {
    "converse": {
        "schemaVersion": "bedrock-conversation-2024",
        "messages": [{"role": m["role"], "content": [{"text": m["content"]}]} for m in CHAT],
    },
    "claude-messages": {"system": "Be brief, please.", "messages": CHAT},
    "trl-chat": {"prompt": CHAT[:1], "completion": CHAT[1:]},
    "gemini": {"contents": [{"role": m["role"], "parts": [{"text": m["content"]}]} for m in CHAT]},
}
"""Records of the formats that are no texts under their keys, nor messages under their only one."""


def make_record(format: RecordFormat) -> dict[str, Any]:
    """Return a record of a format, from its description."""
    if format.name in RECORDS:
        return {**RECORDS[format.name]}
    if format.text_keys:
        return dict(zip(format.text_keys, (QUESTION, ANSWER), strict=False))
    [key] = format.keys.required
    return {key: CHAT}


READ = [
    f
    for f in all_formats()
    if f.parse and f.is_trained_on and f.flatten is None and f.name != "invocation-log"
]
"""All formats but those of annotation tools, whose exports test_tool_exports.py has, and Bedrock's
logs of calls, which have the call around the record; test_invocation_logs.py has them."""

MEANINGFUL = (
    *("system", "system_prompt", "context", "documents", "passage", "knowledge", "history"),
    *("tools", "functions", "weight", "label", "score", "rating", "reward", "preference", "winner"),
    *("chosen", "rejected", "is_correct", "images", "image_url", "video", "audio", "reasoning"),
    *("explanation", "rationale", "reference_answer", "ground_truth", "choices", "kto_tag"),
)
"""What the issue names, and what is like it: with a value, it is used or an error."""
DESCRIPTIVE = (
    *("id", "_id", "uuid", "prompt_id", "source", "url", "lang", "split", "topic", "category"),
    *("created_at", "timestamp", "metadata", "tags", "model", "version"),
)
UNKNOWN = (
    *("frage", "remark", "steps", "foo", "extra_1", "x", "Zusatz", "note to self", "payload"),
    *("kommentar", "stage", "bucket", "annotations", "hint", "summary_de"),
)
KEYS = (*MEANINGFUL, *DESCRIPTIVE, *UNKNOWN)


def values_of(key: str) -> st.SearchStrategy[Any]:
    """Return values of every type; texts name their key, so that they can be found again."""
    sentence = f"what the key {key} says, in words"
    return st.sampled_from(
        [
            *(sentence, "word", 0.5, 3, True, False, None, "", [], {}),
            *([sentence, "and more of it"], {"inner": sentence}, [{"inner": sentence}]),
        ]
    )


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Draw a record of a format, with further keys in any order, some of its own keys null."""
    record = make_record(draw(st.sampled_from(READ)))
    for key in draw(st.lists(st.sampled_from(sorted(record)), max_size=1)):
        record[key] = None
    for key in draw(st.lists(st.sampled_from(KEYS), max_size=3, unique=True)):
        record.setdefault(key, draw(values_of(key)))
    return {key: record[key] for key in draw(st.permutations(sorted(record)))}


def all_texts(record: Record) -> str:
    """Return everything that a record says to a model."""
    if isinstance(record, Document):
        return record.text
    tools = [
        f"{tool.name} {tool.description} {json.dumps(tool.parameters)}" for tool in record.tools
    ]
    return "\n".join(
        [*record.system, *(t for turn in record.turns for t in turn.all_texts), *tools]
    )


def says_nothing(value: object) -> bool:
    return value is None or value in ("", [], {})


def leaves(value: object) -> list[object]:
    """Return the texts and numbers in a value, whatever it is nested in."""
    if isinstance(value, Mapping):
        return [leaf for inner in value.values() for leaf in leaves(inner)]
    return (
        [leaf for inner in value for leaf in leaves(inner)] if isinstance(value, list) else [value]
    )


def is_used(value: object, texts: str) -> bool:
    return all(str(leaf) in texts for leaf in leaves(value) if leaf not in ("user", "assistant"))


def may_be_dropped(key: str, value: object) -> bool:
    """Return whether a key may be left out, by what the issue says of its name and value."""
    if key in DESCRIPTIVE or key == "schemaVersion":
        return True
    is_sentence = any(isinstance(leaf, str) and " " in leaf for leaf in leaves(value))
    return key in UNKNOWN and not is_sentence and not isinstance(value, (list, dict))


@pytest.mark.parametrize("is_labeled", [True, False])
@settings(max_examples=400)
@given(record=records())
@example(record={"prompt": [{"role": "user", "content": "Where to?"}], "completion": None})
@example(record={"prompt": None, "completion": [{"role": "assistant", "content": "There."}]})
def test_no_key_that_carries_meaning_is_lost(is_labeled: bool, record: dict[str, Any]) -> None:
    try:
        parsed = parse_record(record, {}, "" if is_labeled else "input")
    except BadRecord as bad:
        # An error names what is wrong: a key of the record, and a way out.
        assert any(repr(key) in str(bad) or key in (bad.field or "") for key in record), bad
        assert bad.fix
        return
    texts = all_texts(parsed)
    for key, value in record.items():
        if says_nothing(value) or is_used(value, texts):
            continue
        assert may_be_dropped(key, value), (key, value, parsed)
        assert key in parsed.left_out or key == "schemaVersion", (key, parsed)


@pytest.mark.parametrize("format", READ, ids=lambda format: format.name)
def test_every_format_reads_its_own_record(format: RecordFormat) -> None:
    record = make_record(format)
    parsed = parse_record(record, {}, "" if format.is_labeled else "input")
    assert parsed.format == format.name and parsed.left_out == ()
    assert is_used(list(record.values()), f"{all_texts(parsed)} bedrock-conversation-2024")


TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
NAME = st.sampled_from(["find_pier", "open_hours", "buy_ticket"])
ARGUMENTS = st.dictionaries(st.sampled_from(["line", "day"]), TEXT | st.integers(0, 9), max_size=2)
Exchange = tuple[str, str, tuple[tuple[str, dict[str, Any], str], ...]]
"""A question, its answer, and calls of tools before it: name, arguments, result."""


@st.composite
def conversations(draw: st.DrawFn, *, tools: bool = False) -> Conversation:
    """Draw a conversation. Calls have the ids that the parser gives to calls without one."""
    turns: list[Turn] = []
    count = 0
    for _ in range(draw(st.integers(1, 3))):
        turns.append(Turn("user", (draw(TEXT),)))
        for _ in range(draw(st.integers(0, 2)) if tools else 0):
            count += 1
            call = ToolCall(f"call_{count}", draw(NAME), draw(ARGUMENTS))
            turns.append(Turn("assistant", (call,)))
            result = ToolResult(call.id, (draw(TEXT),), call.name)
            turns.append(Turn("user", (result,)))
        turns.append(Turn("assistant", (draw(TEXT),)))
    system = draw(st.none() | TEXT)
    listed = (Tool("find_pier", "Find a pier.", {"type": "object"}),) if tools else ()
    return Conversation("x", (system,) if system else (), tuple(turns), tools=listed)


def flat(chat: Conversation) -> list[tuple[str, Block]]:
    return [(turn.role, block) for turn in chat.turns for block in turn.content]


def function_of(tool: Tool) -> dict[str, Any]:
    return {
        "name": tool.name,
        "description": tool.description,
        "parameters": tool.parameters,
    }


def as_openai(chat: Conversation) -> dict[str, Any]:
    messages: list[dict[str, Any]] = [{"role": "system", "content": text} for text in chat.system]
    for role, block in flat(chat):
        if isinstance(block, ToolCall):
            function = {"name": block.name, "arguments": json.dumps(block.arguments)}
            call = {"id": block.id, "type": "function", "function": function}
            messages.append({"role": "assistant", "content": None, "tool_calls": [call]})
        elif isinstance(block, ToolResult):
            text = block.content[0]
            messages.append({"role": "tool", "tool_call_id": block.id, "content": text})
        else:
            messages.append({"role": role, "content": block})
    tools = [{"type": "function", "function": function_of(tool)} for tool in chat.tools]
    return {"messages": messages, "tools": tools}


def as_openai_parts(chat: Conversation) -> dict[str, Any]:
    value = as_openai(chat)
    for message in value["messages"]:
        if isinstance(message["content"], str) and message["role"] != "tool":
            part = {"type": "text", "text": message["content"], "image_url": None}
            message["content"] = [part]
        message["name"] = None
    return value


def as_developer(chat: Conversation) -> dict[str, Any]:
    value = as_openai(chat)
    for message in value["messages"]:
        if message["role"] == "system":
            message["role"] = "developer"
    return value


def as_json_text(chat: Conversation) -> dict[str, Any]:
    value = as_openai(chat)
    return {"messages": json.dumps(value["messages"]), "tools": json.dumps(value["tools"])}


def as_sharegpt(chat: Conversation) -> dict[str, Any]:
    turns = [{"from": "system", "value": text} for text in chat.system]
    for role, block in flat(chat):
        if isinstance(block, ToolCall):
            call = {"name": block.name, "arguments": block.arguments}
            turns.append({"from": "function_call", "value": json.dumps(call)})
        elif isinstance(block, ToolResult):
            turns.append({"from": "observation", "value": str(block.content[0])})
        else:
            speaker = "human" if role == "user" else "gpt"
            turns.append({"from": speaker, "value": str(block)})
    return {"conversations": turns, "tools": json.dumps([function_of(t) for t in chat.tools])}


def as_converse(chat: Conversation) -> dict[str, Any]:
    messages = []
    for role, block in flat(chat):
        content: dict[str, Any] = {"text": block}
        if isinstance(block, ToolCall):
            use = {"toolUseId": block.id, "name": block.name, "input": block.arguments}
            content = {"toolUse": use}
        elif isinstance(block, ToolResult):
            result = {"toolUseId": block.id, "content": [{"text": block.content[0]}]}
            content = {"toolResult": result}
        messages.append({"role": role, "content": [content]})
    specs = [
        {
            "toolSpec": {
                "name": tool.name,
                "description": tool.description,
                "inputSchema": {"json": tool.parameters},
            }
        }
        for tool in chat.tools
    ]
    system = [{"text": text} for text in chat.system]
    value = {"schemaVersion": "bedrock-conversation-2024", "system": system, "messages": messages}
    return {**value, "toolConfig": {"tools": specs} if specs else None}


def as_claude(chat: Conversation) -> dict[str, Any]:
    messages = []
    for role, block in flat(chat):
        content: object = block
        if isinstance(block, ToolCall):
            use = {"type": "tool_use", "id": block.id, "name": block.name}
            content = [{**use, "input": block.arguments}]
        elif isinstance(block, ToolResult):
            content = [
                {"type": "tool_result", "tool_use_id": block.id, "content": block.content[0]}
            ]
        messages.append({"role": role, "content": content})
    tools = [
        {"name": tool.name, "description": tool.description, "input_schema": tool.parameters}
        for tool in chat.tools
    ]
    return {"system": "".join(chat.system), "messages": messages, "tools": tools}


def as_gemini(chat: Conversation) -> dict[str, Any]:
    contents = []
    for role, block in flat(chat):
        part: dict[str, Any] = {"text": block}
        if isinstance(block, ToolCall):
            part = {"functionCall": {"name": block.name, "args": block.arguments}}
        elif isinstance(block, ToolResult):
            part = {"functionResponse": {"name": block.name, "response": block.content[0]}}
        contents.append({"role": "model" if role == "assistant" else role, "parts": [part]})
    tools = [
        {**function_of(tool), "parameters": {"type": tool.parameters["type"].upper()}}
        for tool in chat.tools
    ]
    system = {"parts": [{"text": text} for text in chat.system]} if chat.system else None
    declared = [{"functionDeclarations": tools}] if tools else None
    return {"systemInstruction": system, "contents": contents, "tools": declared}


def as_trl(chat: Conversation) -> dict[str, Any]:
    value = as_openai(chat)
    *prompt, answer = value["messages"]
    return {"prompt": prompt, "completion": [answer], "tools": value["tools"]}


def as_cohere(chat: Conversation) -> dict[str, Any]:
    value = as_openai(chat)
    names = {"system": "System", "user": "User", "assistant": "Chatbot", "tool": "Tool"}
    for message in value["messages"]:
        message["role"] = names[message["role"]]
    return value


DIALECTS: list[Callable[[Conversation], dict[str, Any]]] = [
    *(as_openai, as_openai_parts, as_developer, as_json_text, as_sharegpt, as_converse),
    *(as_claude, as_gemini, as_trl, as_cohere),
]


def stage(value: dict[str, Any]) -> bytes:
    return encode_record(parse_record(value, {}, "converse"), "converse")[0]


@pytest.mark.parametrize("tools", [False, True])
@settings(max_examples=60)
@given(data=st.data())
def test_equal_meaning_in_two_dialects_stages_equal_bytes(tools: bool, data: st.DataObject) -> None:
    chat = data.draw(conversations(tools=tools))
    canonical = encode_record(chat, "converse")[0]
    for write in DIALECTS:
        assert stage(write(chat)) == canonical, write.__name__


PAIRS = [format for format in READ if len(format.text_keys) == 2]


@settings(max_examples=50)
@given(question=TEXT, answer=TEXT, system=TEXT)
def test_pairs_under_any_names_stage_equal_bytes(question: str, answer: str, system: str) -> None:
    chat = Conversation("x", (), (Turn("user", (question,)), Turn("assistant", (answer,))))
    canonical = encode_record(chat, "converse")[0]
    with_system = encode_record(replace(chat, system=(system,)), "converse")[0]
    for format in PAIRS:
        pair = dict(zip(format.text_keys, (question, answer), strict=True))
        assert stage(pair) == canonical
        assert stage({**pair, "system": None, "tools": None, "id": 7}) == canonical
        assert stage({**pair, "system": system}) == with_system
        assert stage({**pair, "history": [[question, answer]]}) == stage(
            as_openai(replace(chat, turns=(*chat.turns, *chat.turns)))
        )
    joined = f"{question}\n\n{system}"
    alpaca = {"instruction": question, "input": system, "output": answer}
    assert stage(alpaca) == stage({"prompt": joined, "completion": answer})
