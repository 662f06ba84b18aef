"""Tool calls and JSON answers in every API's form: streamed as whole, constrained as requested."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from engine_scripts import end_of, scripted, spelled

from cloudft.endpoint.bedrock import claude_bodies, converse_responses
from cloudft.endpoint.bedrock.answer_stream import AnswerStream, InferenceResult
from cloudft.endpoint.bedrock.converse_requests import parse_converse_request
from cloudft.endpoint.bedrock.inference_request import InferenceRequest, ModelRef
from cloudft.endpoint.bedrock.tool_calls import call_schema
from cloudft.endpoint.openai_api import chat_answers
from cloudft.endpoint.openai_api.chat_requests import parse_chat
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.errors import (
    EngineBusy,
    PromptTooLong,
    RequestRefused,
    TrainerError,
    UsageError,
)
from cloudft.serving.engine import EngineDelta, EngineEvent, EngineFailure, TokenLogprob

BASE = ModelRef(None, "any", "base")
CHAT: list[Any] = [{"role": "user", "content": [{"text": "Where is it?"}]}]
CITY = {"type": "object", "properties": {"city": {"type": "string"}}}
COLOR = {"type": "object", "properties": {"color": {"$ref": "#/$defs/c"}}, "$defs": {"c": {}}}
OSLO = {"name": "find", "arguments": {"city": "Oslo"}}


def tool(name: str, schema: Any, **members: Any) -> Any:
    return {"toolSpec": {"name": name, "inputSchema": {"json": schema}, **members}}


def ask(choice: str | None = None, **members: Any) -> InferenceRequest:
    """Return a request with two tools."""
    config: dict[str, Any] = {"tools": [tool("find", CITY), tool("paint", COLOR)]}
    if choice:
        config["toolChoice"] = {choice: {"name": "find"} if choice == "tool" else {}}
    return parse_converse_request({"messages": CHAT, "toolConfig": config, **members})


def joined_converse(answer: AnswerStream) -> Any:
    """Return what a client of ConverseStream joins the events to."""
    blocks: dict[int, Any] = {}
    for name, event in converse_responses.converse_stream_events(answer):
        data: Any = event
        if name == "contentBlockStart":
            blocks[data["contentBlockIndex"]] = {"toolUse": {**data["start"]["toolUse"]}}
        if name == "contentBlockDelta":
            block = blocks.setdefault(data["contentBlockIndex"], {})
            add_delta(block, data["delta"])
        if name == "messageStop":
            reason = data["stopReason"]
    for block in blocks.values():
        if "toolUse" in block:
            block["toolUse"]["input"] = json.loads(block["toolUse"]["input"])
    return [*blocks.values()], reason


def add_delta(block: dict[str, Any], delta: Any) -> None:
    if "text" in delta:
        block["text"] = block.get("text", "") + delta["text"]
    elif "toolUse" in delta:
        use = block["toolUse"]
        use["input"] = use.get("input", "") + delta["toolUse"]["input"]
    else:
        thought = block.setdefault("reasoningContent", {}).setdefault("reasoningText", {})
        thought["text"] = thought.get("text", "") + delta["reasoningContent"]["text"]


def whole_converse(result: InferenceResult) -> Any:
    output: Any = converse_responses.converse_output(result)
    return output["output"]["message"]["content"], output["stopReason"]


def joined_claude(answer: AnswerStream) -> Any:
    blocks: list[Any] = []
    reason = None
    for event in claude_bodies.claude_chunks(answer):
        data: Any = event
        if data["type"] == "content_block_start":
            assert data["index"] == len(blocks)
            blocks.append({**data["content_block"]})
        if data["type"] == "content_block_delta" and data["delta"]["type"] == "text_delta":
            blocks[data["index"]]["text"] += data["delta"]["text"]
        if data["type"] == "content_block_delta" and data["delta"]["type"] == "input_json_delta":
            block = blocks[data["index"]]
            block["input"] = (block["input"] or "") + data["delta"]["partial_json"]
        if data["type"] == "message_delta":
            reason = data["delta"]["stop_reason"]
    for block in blocks:
        if block["type"] == "tool_use":
            block["input"] = json.loads(block["input"])
    return blocks, reason


def whole_claude(result: InferenceResult) -> Any:
    message = claude_bodies.format_claude(result)
    return message["content"], message["stop_reason"]


def joined_openai(answer: AnswerStream) -> Any:
    message: dict[str, Any] = {"content": ""}
    for chunk in chat_answers.chat_chunks(answer):
        [choice] = chunk["choices"]  # type: ignore[misc]
        delta: Any = choice["delta"]
        message["content"] += delta.get("content", "")
        if "reasoning" in delta:
            message["reasoning"] = message.get("reasoning", "") + delta["reasoning"]
        for call in delta.get("tool_calls", ()):
            calls = message.setdefault("tool_calls", [])
            if "id" in call:
                assert call["index"] == len(calls)
                calls.append({k: v for k, v in call.items() if k != "index"})
            else:
                calls[call["index"]]["function"]["arguments"] += call["function"]["arguments"]
    message["content"] = message["content"] or (None if "tool_calls" in message else "")
    return without_role(message), choice["finish_reason"]


def whole_openai(result: InferenceResult) -> Any:
    choices: Any = chat_answers.format_chat(result)["choices"]
    return without_role(choices[0]["message"]), choices[0]["finish_reason"]


def without_role(message: dict[str, Any]) -> Any:
    return {name: value for name, value in message.items() if name != "role"}


def with_calls(*calls: Any) -> list[EngineEvent]:
    """Return an answer with reasoning, a text and calls; the text's end has the calls as JSON."""
    dumped = json.dumps(calls[0] if len(calls) == 1 else list(calls))
    text = f"Let me see.\n{dumped}"
    deltas = [EngineDelta("", "Hm."), EngineDelta("Let me"), EngineDelta(" see"), EngineDelta(".")]
    end = end_of(text, reasoning="Hm.", calls=list(calls))
    return [*deltas, EngineDelta(f"\n{dumped}"), end]


@pytest.mark.parametrize(
    "joined, whole",
    [
        (joined_claude, whole_claude),
        (joined_converse, whole_converse),
        (joined_openai, whole_openai),
    ],
)
@pytest.mark.parametrize("calls", [1, 2])
def test_calls_are_the_same_streamed_and_whole(
    joined: Callable[[AnswerStream], Any], whole: Callable[[InferenceResult], Any], calls: int
) -> None:
    inference, _ = scripted(with_calls(*[OSLO] * calls))
    answer = inference.stream(BASE, ask())
    streamed = joined(answer)
    assert streamed == whole(answer.result)
    assert answer.result.text == "Let me see." and len(answer.result.calls) == calls
    assert answer.result.stop_reason == "tool_use"


@pytest.mark.parametrize("choice", ["any", "tool"])
@pytest.mark.parametrize(
    "joined, whole",
    [
        (joined_claude, whole_claude),
        (joined_converse, whole_converse),
        (joined_openai, whole_openai),
    ],
)
def test_a_forced_call_is_streamed_while_it_is_written(
    joined: Callable[[AnswerStream], Any], whole: Callable[[InferenceResult], Any], choice: str
) -> None:
    inference, engine = scripted(spelled(json.dumps(OSLO)))
    answer = inference.stream(BASE, ask(choice))
    assert joined(answer) == whole(answer.result)
    [call] = answer.result.calls
    assert (call.name, call.arguments) == ("find", {"city": "Oslo"})
    schema: Any = engine.requests[0].json_schema
    names = [one["properties"]["name"]["const"] for one in schema.get("anyOf", [schema])]
    assert names == (["find", "paint"] if choice == "any" else ["find"])
    if choice == "any":  # a reference within a tool's schema leads to where that schema is now
        moved = schema["anyOf"][1]["properties"]["arguments"]
        assert moved["properties"]["color"]["$ref"] == "#/anyOf/1/properties/arguments/$defs/c"


def test_a_forced_call_has_no_member_that_its_tool_does_not_name() -> None:
    nested = {"type": "object", "properties": {"a": CITY, "b": {"type": "array", "items": CITY}}}
    schema: Any = call_schema([("find", nested)])["properties"]["arguments"]
    inner = schema["properties"]
    for one in (schema, inner["a"], inner["b"]["items"]):
        assert one["additionalProperties"] is False
    opened = CITY | {"additionalProperties": True}
    assert call_schema([("find", opened)])["properties"]["arguments"] == opened
    free = {"type": "object"}
    assert call_schema([("find", free)])["properties"]["arguments"] == free


def test_the_input_of_a_forced_call_comes_in_pieces() -> None:
    inference, _ = scripted(spelled(json.dumps(OSLO)))
    events = [*converse_responses.converse_stream_events(inference.stream(BASE, ask("any")))]
    deltas = [event for name, event in events if name == "contentBlockDelta"]
    assert len(deltas) > 3


def test_a_forced_call_that_was_cut_is_none() -> None:
    inference, _ = scripted(spelled(json.dumps(OSLO)[:-6], "length"))
    result = inference.generate(BASE, ask("any"))
    assert (result.stop_reason, result.calls, result.text) == ("max_tokens", (), "")


def test_a_call_of_a_strict_tool_is_written_again_within_its_schema() -> None:
    wrong = {"name": "find", "arguments": {"town": "Oslo"}}
    inference, engine = scripted(with_calls(wrong), spelled(json.dumps(OSLO)))
    config = {"tools": [tool("find", CITY, strict=True), tool("paint", COLOR)]}
    request = parse_converse_request({"messages": CHAT, "toolConfig": config})
    answer = inference.stream(BASE, request)
    assert joined_converse(answer) == whole_converse(answer.result)
    assert [call.arguments for call in answer.result.calls] == [{"city": "Oslo"}]
    assert answer.result.output_tokens == 18
    assert engine.requests[0].json_schema is None and engine.requests[1].json_schema is not None
    # The template knows no strictness.
    shown: Any = engine.requests[0].prompt.tool_config
    assert [set(one["toolSpec"]) for one in shown["tools"]] == [{"name", "inputSchema"}] * 2


def test_several_strict_calls_are_written_again_in_one_answer() -> None:
    oslo, bergen = OSLO, {"name": "find", "arguments": {"city": "Bergen"}}
    inference, engine = scripted(with_calls(oslo, oslo), spelled(json.dumps([oslo, bergen])))
    config = {"tools": [tool("find", CITY, strict=True)]}
    request = parse_converse_request({"messages": CHAT, "toolConfig": config})
    answer = inference.stream(BASE, request)
    assert joined_converse(answer) == whole_converse(answer.result)
    assert [call.arguments["city"] for call in answer.result.calls] == ["Oslo", "Bergen"]
    assert len(engine.requests[1].json_schema["prefixItems"]) == 2  # type: ignore[index]


def test_an_answer_of_tools_and_a_schema_is_either() -> None:
    schema = {"type": "object", "properties": {"place": {"type": "string"}}}
    output = {
        "textFormat": {
            "type": "json_schema",
            "structure": {"jsonSchema": {"schema": json.dumps(schema)}},
        }
    }
    inference, engine = scripted(spelled(json.dumps(OSLO)), spelled('{"place": "Oslo"}'))
    called, said = (inference.generate(BASE, ask(outputConfig=output)) for _ in range(2))
    assert [call.name for call in called.calls] == ["find"] and called.text == ""
    assert (said.calls, said.text) == ((), '{"place": "Oslo"}')
    assert engine.requests[0].json_schema["anyOf"][2] == schema  # type: ignore[index]


def test_openai_s_tools_and_messages_reach_the_model() -> None:
    inference, engine = scripted(with_calls(OSLO, OSLO))
    function = {"name": "find", "parameters": CITY, "strict": False}
    call = {"id": "c1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    result = inference.generate(
        BASE,
        parse_chat(
            {
                "messages": [
                    {"role": "developer", "content": "Be brief."},
                    {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
                    {"role": "assistant", "content": None, "tool_calls": [call, call]},
                    {"role": "tool", "tool_call_id": "c1", "content": "a"},
                    {"role": "tool", "tool_call_id": "c1", "content": "b"},
                ],
                "tools": [{"type": "function", "function": function}],
                "parallel_tool_calls": False,
                "seed": 5,
                "stop": "x",
            }
        ),
    )
    [request] = engine.requests
    assert [m["role"] for m in request.prompt.messages] == ["system", "user", "assistant", "user"]
    results = request.prompt.messages[-1]["content"]
    assert [r["toolResult"]["content"] for r in results] == [[{"text": "a"}], [{"text": "b"}]]
    assert request.decoding.seed == 5 and list(request.stop) == ["x"]
    assert len(result.calls) == 1  # one at a time, as requested


@pytest.mark.parametrize(
    ("choice", "forced"),
    [
        (None, 0),
        ("auto", 0),
        ("required", 2),
        ({"type": "function", "function": {"name": "find"}}, 1),
    ],
)
def test_openai_s_tool_choice(choice: Any, forced: int) -> None:
    tools = [{"type": "function", "function": {"name": name}} for name in ("find", "paint")]
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": tools}
    parsed = parse_chat(body | ({"tool_choice": choice} if choice else {}))
    assert len(parsed.tools.forced) == forced
    assert parse_chat(body | {"tool_choice": "none"}).tools.config is None


@pytest.mark.parametrize(
    ("given", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {"type": "object"}),
        ({"type": "json_schema", "json_schema": {"name": "n", "schema": CITY}}, CITY),
    ],
)
def test_openai_s_response_format(given: Any, schema: Any) -> None:
    body = {"messages": [{"role": "user", "content": "Hi"}], "response_format": given}
    assert parse_chat(body).json_schema == schema


def test_claude_s_tools_and_schema() -> None:
    body = {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 6,
        "messages": [{"role": "user", "content": "Hi"}],
        "tools": [{"name": "find", "input_schema": CITY, "strict": True}],
        "tool_choice": {"type": "tool", "name": "find"},
        "output_config": {"format": {"type": "json_schema", "schema": CITY}},
    }
    parsed = claude_bodies.parse_claude(body, False)
    assert parsed.tools.forced == ("find",) and parsed.tools.strict == {"find"}
    assert parsed.json_schema == CITY
    body["output_config"] = {"effort": "low"}
    with pytest.raises(ServiceError, match=r"output_config.effort: Extra inputs are not permitted"):
        claude_bodies.parse_claude(body, False)


@pytest.mark.parametrize(
    ("events", "code", "words"),
    [
        ([EngineFailure(EngineBusy("busy"))], "ThrottlingException", "Too many requests"),
        (
            [EngineFailure(UsageError("`not` can't be kept", fix="Remove it."))],
            "ValidationException",
            "The model returned the following errors: `not` can't be kept Remove it.",
        ),
        (
            [EngineFailure(RequestRefused("`not` can't be kept.", fix="Remove it."))],
            "ValidationException",
            "The model returned the following errors: `not` can't be kept. Remove it.",
        ),
        (
            [EngineFailure(PromptTooLong("5000 tokens"))],
            "ValidationException",
            "Input is too long for requested model.",
        ),
        ([EngineFailure(TrainerError("out of memory"))], "ModelErrorException", "out of memory"),
    ],
)
def test_an_engine_s_errors_are_bedrock_s(
    events: Sequence[EngineEvent], code: str, words: str
) -> None:
    inference, engine = scripted(events)
    with pytest.raises(ServiceError, match=words) as caught:
        inference.generate(BASE, ask())
    assert caught.value.code == code and engine.canceled == ["1"]


def test_a_stream_that_is_closed_cancels_its_request() -> None:
    inference, engine = scripted(spelled("abcdefghi"), spelled("abc"))
    request = parse_converse_request({"messages": CHAT})
    answer = inference.stream(BASE, request)
    parts = iter(answer)
    next(parts)
    answer.close()
    assert engine.canceled == ["1"]
    # Also one that nobody has begun to read.
    unread = inference.stream(BASE, request)
    unread.wait_for_first()
    unread.close()
    assert engine.canceled == ["1", "2"]


def test_chat_completions_have_the_scores_of_their_tokens() -> None:
    def scored(text: str) -> TokenLogprob:
        return TokenLogprob(1, text, text.encode(), -0.5, (TokenLogprob(1, text, b"", -0.5),))

    # A token that is a part of a character has no text of its own yet.
    events = [
        EngineDelta("In", tokens=1, logprobs=(scored("In"),)),
        EngineDelta("", tokens=2, logprobs=(scored("\ufffd"),)),
        EngineDelta(" Oslo", tokens=3, logprobs=(scored(" Oslo"),)),
        end_of("In Oslo"),
    ]
    inference, engine = scripted(events, events)
    chat = {"messages": [{"role": "user", "content": "Where?"}], "model": "any"}
    request = parse_chat({**chat, "logprobs": True, "top_logprobs": 1})
    result = inference.generate(BASE, request)
    [whole] = chat_answers.format_chat(result)["choices"]
    chunks = chat_answers.chat_chunks(inference.stream(BASE, request, "any"))
    parts = [
        c["logprobs"]["content"] for chunk in chunks for c in chunk["choices"] if c["logprobs"]
    ]
    assert [len(part) for part in parts] == [1, 2]
    content = whole["logprobs"]["content"]
    assert content == [token for part in parts for token in part]
    assert [token["token"] for token in content] == ["In", "\ufffd", " Oslo"]
    assert content[0]["top_logprobs"][0]["token"] == "In"
    assert [made.logprobs for made in engine.requests] == [1, 1]
    assert parse_chat({**chat, "logprobs": False}).logprobs is parse_chat(chat).logprobs is None


@pytest.mark.parametrize(
    "members",
    [{"logprobs": 3}, {"logprobs": True, "top_logprobs": 21}, {"top_logprobs": 2}],
    ids=str,
)
def test_scores_that_can_not_be_had_are_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ServiceError, match="logprobs: "):
        parse_chat({"messages": [{"role": "user", "content": "Where?"}], "model": "any", **members})
