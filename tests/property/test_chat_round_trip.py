"""Chats with tools, results, reasoning and weights, from one format into another and back."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.data.analysis.duplicates import record_text
from cloudft.data.checks.template_limits import TEMPLATE_FEATURES, find_template_needs
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import BadRecord, Conversation
from cloudft.data.formats.registry import encode_record
from cloudft.inference import message_text
from cloudft.jobs.prompts import prompt_of_record
from local_backend.data.chat_messages import to_chat
from local_backend.data.template_support import FEATURE_NAMES, find_needs

Value = dict[str, Any]
USE = {"toolUseId": "a", "name": "f", "input": {"k": 1}}
TEXT = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12).filter(str.strip)
NAME = st.from_regex(r"[a-z][a-z_]{0,8}", fullmatch=True)
JSON = st.recursive(
    st.booleans() | st.integers(-(2**40), 2**40) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAME, inner, max_size=2),
    max_leaves=4,
)
ARGUMENTS = st.dictionaries(NAME, JSON, max_size=3)
TOOL = st.builds(
    lambda name, description, names: {
        "type": "function",
        "function": {
            "name": name,
            "description": description,
            "parameters": {"type": "object", "properties": {n: {"type": "string"} for n in names}},
        },
    },
    NAME,
    TEXT | st.just(""),
    st.lists(NAME, max_size=2),
)


@st.composite
def chats(draw: st.DrawFn) -> Value:
    """Return a record of OpenAI's messages, in the form in which cloudft writes it."""
    messages: list[Value] = []
    if draw(st.booleans()):
        messages.append({"role": "system", "content": draw(TEXT)})
    messages.append({"role": "user", "content": draw(TEXT)})
    rounds = draw(st.integers(1, 3))
    calls = 0
    for number in range(rounds):
        names = draw(st.lists(NAME, max_size=2))
        reply: Value = {"role": "assistant"}
        if draw(st.booleans()):
            reply["reasoning_content"] = draw(TEXT)
        reply["content"] = draw(TEXT | st.none()) if names else draw(TEXT)
        made = []
        for name in names:
            calls += 1
            arguments = json.dumps(draw(ARGUMENTS), ensure_ascii=False)
            function = {"name": name, "arguments": arguments}
            made.append({"id": f"call-{calls}", "type": "function", "function": function})
        if made:
            reply["tool_calls"] = made
        if draw(st.booleans()) and number < rounds - 1:
            reply["weight"] = 0
        messages.append(reply)
        if number == rounds - 1:
            break
        messages += [
            {"role": "tool", "tool_call_id": c["id"], "content": draw(TEXT | st.just(""))}
            for c in made
        ]
        if not made or draw(st.booleans()):
            messages.append({"role": "user", "content": draw(TEXT)})
    tools = draw(st.lists(TOOL, max_size=2))
    return {"messages": messages} | ({"tools": tools} if tools else {})


def written(value: Value, format: str) -> Value:
    """Return a record in another format."""
    line: Value = json.loads(encode_record(parse_record(value, {}), format)[0])
    return line


@settings(deadline=None)
@given(chats())
def test_nothing_is_lost_from_messages_to_converse_and_back(value: Value) -> None:
    assert written(value, "messages") == value
    assert written(written(value, "converse"), "messages") == value


@settings(deadline=None)
@given(chats())
def test_a_check_and_the_trainer_find_the_same_needs(value: Value) -> None:
    record = parse_record(value, {})
    assert isinstance(record, Conversation)
    staged = json.loads(encode_record(record, "converse")[0])
    assert find_template_needs(record) == find_needs(to_chat(staged, "converse"))


def test_a_check_and_the_trainer_name_what_a_template_renders_alike() -> None:
    assert TEMPLATE_FEATURES == FEATURE_NAMES


@settings(deadline=None)
@given(chats())
def test_a_prompt_has_every_turn_before_the_answer_and_the_trainer_reads_the_same(
    value: Value,
) -> None:
    record = parse_record(value, {})
    assert isinstance(record, Conversation)
    built = prompt_of_record(record, raw=False)
    staged = json.loads(encode_record(record, "converse")[0])
    sent: Value = {"messages": [*built.prompt.messages]}
    if built.prompt.tool_config:
        sent["toolConfig"] = built.prompt.tool_config
    chat, prompt = to_chat(staged, "converse"), to_chat(sent, "converse")
    assert list(prompt.messages) == list(chat.messages)[: len(prompt.messages)]
    assert len(chat.messages) == len(prompt.messages) + 1
    assert list(prompt.tools) == list(chat.tools)
    assert built.shown == message_text(built.prompt.messages[-1])
    for call in chat.messages[-1].get("tool_calls", ()):
        assert json.dumps(call["function"], ensure_ascii=False) in str(built.reference)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"toolUse": USE}, {"text": "Wait."}], "a text after a tool call"),
        ([{"toolUse": USE}], "a tool result that is marked as an error"),
    ],
)
def test_what_openais_form_lacks_is_refused_by_name(content: list[Value], named: str) -> None:
    result = {"toolUseId": "a", "content": [{"text": "no"}], "status": "error"}
    turns = [
        {"role": "user", "content": [{"text": "Q?"}]},
        {"role": "assistant", "content": content},
        {"role": "user", "content": [{"toolResult": result}]},
        {"role": "assistant", "content": [{"text": "A."}]},
    ]
    value = {"schemaVersion": "bedrock-conversation-2024", "messages": turns}
    assert json.loads(encode_record(parse_record(value, {}), "converse")[0]) == value
    with pytest.raises(BadRecord, match=named):
        written(value, "messages")


def test_a_record_of_which_nothing_would_be_learned_is_refused() -> None:
    reply = {"role": "assistant", "content": "A.", "weight": 0}
    with pytest.raises(BadRecord, match="nothing of the record would be learned"):
        parse_record({"messages": [{"role": "user", "content": "Q?"}, reply]}, {})


def test_equal_prompts_with_other_tools_or_weights_are_no_duplicates() -> None:
    def text(**changes: Any) -> str:
        first = {"role": "assistant", "content": "A.", **changes.pop("reply", {})}
        turns = [{"role": "user", "content": "Q?"}, first]
        turns += [{"role": "user", "content": "And?"}, {"role": "assistant", "content": "B."}]
        return record_text(parse_record({"messages": turns, **changes}, {}))

    tool = {"type": "function", "function": {"name": "f", "parameters": {}}}
    texts = [text(), text(tools=[tool]), text(reply={"weight": 0})]
    assert len(set(texts)) == 3 and text() == text(reply={"weight": 1})
