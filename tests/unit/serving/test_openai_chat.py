"""Chat completions as OpenAI's Python client sends and reads them, over scripted answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from scripted_engine import Script, ScriptedEngine, serving

from cloudft.errors import EngineFailed, PromptTooLong, RequestRefused, TrainerError
from cloudft.serving.engine import EngineRequest

openai = pytest.importorskip("openai")
pytest.importorskip("prometheus_client")

ASK: dict[str, Any] = {"model": "router", "messages": [{"role": "user", "content": "Where is it?"}]}
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Current weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
CALL = {"name": "get_weather", "arguments": {"city": "Oslo"}}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[ScriptedEngine, Any]]:
    engine = ScriptedEngine()
    with (
        serving(engine) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client,
    ):
        yield engine, client


@pytest.fixture
def engine(served: tuple[ScriptedEngine, Any]) -> ScriptedEngine:
    served[0].__init__()  # type: ignore[misc]  # as new, behind the same server
    return served[0]


@pytest.fixture
def client(served: tuple[ScriptedEngine, Any], engine: ScriptedEngine) -> Any:
    return served[1]


def script(**values: Any) -> Callable[[EngineRequest], Script]:
    return lambda request: Script(**values)


def joined(chunks: list[Any], name: str = "content") -> str:
    return "".join(getattr(c.choices[0].delta, name, None) or "" for c in chunks if c.choices)


def test_an_answer_is_whole_or_a_stream_of_the_same_text(client: Any, engine: Any) -> None:
    whole = client.chat.completions.create(**ASK)
    [choice] = whole.choices
    assert (choice.message.content, choice.finish_reason) == ("Hello there.", "stop")
    assert whole.usage.model_dump(exclude_none=True) == {
        "prompt_tokens": 5,
        "completion_tokens": 3,
        "total_tokens": 8,
    }
    chunks = list(
        client.chat.completions.create(**ASK, stream=True, stream_options={"include_usage": True})
    )
    assert joined(chunks) == "Hello there."
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == [] and chunks[-1].usage == whole.usage
    assert chunks[-2].choices[0].finish_reason == "stop"
    assert {chunk.system_fingerprint for chunk in chunks} == {whole.system_fingerprint}
    assert len({chunk.id for chunk in chunks}) == 1
    assert whole._request_id.startswith("req_")
    [first, _] = engine.requests
    assert (first.model, first.decoding.temperature, first.decoding.max_new_tokens) == (
        "router",
        0.0,
        4096,
    )


def test_parameters_reach_the_engine_in_its_terms(client: Any, engine: Any) -> None:
    client.chat.completions.create(
        **ASK,
        n=3,
        seed=5,
        temperature=0.5,
        top_p=0.9,
        stop=["a", "b"],
        max_completion_tokens=7,
        extra_body={"top_k": 4},
    )
    decodings = [request.decoding for request in engine.requests]
    assert [one.seed for one in decodings] == [5, 6, 7]
    assert {(d.temperature, d.top_p, d.top_k, d.max_new_tokens) for d in decodings} == {
        (0.5, 0.9, 4, 7)
    }
    assert {tuple(request.stop) for request in engine.requests} == {("a", "b")}
    engine.requests.clear()
    client.chat.completions.create(**ASK, temperature=1, n=2)
    assert len({request.decoding.seed for request in engine.requests}) == 2


def test_the_end_by_length_has_its_reason(client: Any, engine: Any) -> None:
    engine.write = script(finish_reason="length")
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "length"
    engine.write = script(finish_reason="stop_sequence")
    assert client.chat.completions.create(**ASK).choices[0].finish_reason == "stop"


def test_choices_of_a_stream_have_their_index(client: Any, engine: Any) -> None:
    chunks = list(client.chat.completions.create(**ASK, n=2, stream=True))
    for index in range(2):
        own = [c for c in chunks if c.choices[0].index == index]
        assert joined(own) == "Hello there." and own[-1].choices[0].finish_reason == "stop"


def test_logprobs_have_bytes_and_likeliest_tokens(client: Any, engine: Any) -> None:
    engine.write = script(parts=("Gr\u00fc", "\u00dfe"))
    request = {**ASK, "logprobs": True, "top_logprobs": 2}
    whole = client.chat.completions.create(**request)
    tokens = whole.choices[0].logprobs.content
    assert b"".join(bytes(t.bytes) for t in tokens).decode() == "Gr\u00fc\u00dfe"
    assert [len(t.top_logprobs) for t in tokens] == [2, 2]
    streamed = [
        token
        for chunk in client.chat.completions.create(**request, stream=True)
        for token in (
            chunk.choices[0].logprobs
            or whole.choices[0].logprobs.model_copy(update={"content": []})
        ).content
    ]
    assert streamed == tokens
    assert client.chat.completions.create(**ASK).choices[0].logprobs is None


def test_reasoning_has_both_names_that_clients_read(client: Any, engine: Any) -> None:
    engine.write = script(parts=(("", "Let me "), ("", "think."), "Oslo"))
    message = client.chat.completions.create(**ASK).choices[0].message
    assert (message.content, message.reasoning_content, message.reasoning) == (
        "Oslo",
        "Let me think.",
        "Let me think.",
    )
    chunks = list(client.chat.completions.create(**ASK, stream=True))
    assert joined(chunks, "reasoning_content") == joined(chunks, "reasoning") == "Let me think."
    assert joined(chunks) == "Oslo"


def test_a_conversation_with_tool_results_reaches_the_engine(client: Any, engine: Any) -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "get_weather", "arguments": '{"city": "Oslo"}'},
    }
    client.chat.completions.create(
        model="router",
        tools=[WEATHER],
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": [{"type": "text", "text": "Weather"}]},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [call],
                "reasoning_content": "I need it.",
            },
            {"role": "tool", "tool_call_id": "call_1", "content": "4 degrees"},
        ],
    )
    [request] = engine.requests
    use = {"toolUseId": "call_1", "name": "get_weather", "input": {"city": "Oslo"}}
    result = {"toolUseId": "call_1", "content": [{"text": "4 degrees"}]}
    thought = {"reasoningContent": {"reasoningText": {"text": "I need it."}}}
    assert request.prompt.messages == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Weather"},
        {"role": "assistant", "content": [thought, {"toolUse": use}]},
        {"role": "user", "content": [{"toolResult": result}]},
    ]
    [tool] = request.prompt.tool_config["tools"]
    assert tool["toolSpec"]["inputSchema"]["json"] == WEATHER["function"]["parameters"]


def answer_with_calls(*calls: dict[str, Any], text: str = "") -> Callable[..., Script]:
    dumped = json.dumps(list(calls) if len(calls) > 1 else calls[0])
    return script(
        parts=(text[:3], text[3:]) if text else (),
        tail=f"\n{dumped}" if text else dumped,
        calls=calls,
    )


@pytest.mark.parametrize("text", ["", "I look it up."])
@pytest.mark.parametrize("count", [1, 2])
def test_tool_calls_are_no_text(client: Any, engine: Any, text: str, count: int) -> None:
    engine.write = answer_with_calls(*[CALL] * count, text=text)
    whole = client.chat.completions.create(**ASK, tools=[WEATHER]).choices[0]
    assert (whole.message.content, whole.finish_reason) == (text or None, "tool_calls")
    made = [(c.function.name, json.loads(c.function.arguments)) for c in whole.message.tool_calls]
    assert made == [("get_weather", {"city": "Oslo"})] * count
    assert len({call.id for call in whole.message.tool_calls}) == count
    chunks = list(client.chat.completions.create(**ASK, tools=[WEATHER], stream=True))
    assert joined(chunks) == text and chunks[-1].choices[0].finish_reason == "tool_calls"
    parts = [part for c in chunks for part in c.choices[0].delta.tool_calls or []]
    assert [part.index for part in parts] == [*range(count)]
    assert all(part.id and part.type == "function" for part in parts)
    assert [json.loads(part.function.arguments) for part in parts] == [{"city": "Oslo"}] * count


def test_one_call_alone_where_parallel_ones_are_refused(client: Any, engine: Any) -> None:
    engine.write = answer_with_calls(CALL, CALL)
    answer = client.chat.completions.create(**ASK, tools=[WEATHER], parallel_tool_calls=False)
    assert len(answer.choices[0].message.tool_calls) == 1


def test_a_named_function_is_constrained_to_its_parameters(client: Any, engine: Any) -> None:
    engine.write = script(parts=('{"city"', ': "Oslo"}'))
    request = {
        **ASK,
        "tools": [WEATHER],
        "tool_choice": {"type": "function", "function": {"name": "get_weather"}},
    }
    [call] = client.chat.completions.create(**request).choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("get_weather", '{"city": "Oslo"}')
    assert engine.requests[0].json_schema == WEATHER["function"]["parameters"]
    chunks = list(client.chat.completions.create(**request, stream=True))
    parts = [part for c in chunks for part in c.choices[0].delta.tool_calls or []]
    assert "".join(part.function.arguments for part in parts) == '{"city": "Oslo"}'
    assert [bool(part.id) for part in parts] == [True, False] and joined(chunks) == ""
    assert chunks[-1].choices[0].finish_reason == "tool_calls"
    engine.write = script(parts=('{"city"',), finish_reason="length")
    cut = client.chat.completions.create(**request).choices[0]
    assert (cut.message.tool_calls, cut.message.content) == (None, '{"city"')
    assert cut.finish_reason == "length"


@pytest.mark.parametrize("written", [[CALL], [CALL, CALL]])
def test_a_required_call_is_constrained_to_the_tools(
    client: Any, engine: Any, written: list[Any]
) -> None:
    text = json.dumps(written if len(written) > 1 else written[0])
    engine.write = script(parts=(text[:9], text[9:]))
    request = {**ASK, "tools": [WEATHER], "tool_choice": "required"}
    whole = client.chat.completions.create(**request).choices[0]
    assert [c.function.name for c in whole.message.tool_calls] == ["get_weather"] * len(written)
    assert (whole.message.content, whole.finish_reason) == (None, "tool_calls")
    chunks = list(client.chat.completions.create(**request, stream=True))
    assert joined(chunks) == ""
    assert sum(len(c.choices[0].delta.tool_calls or []) for c in chunks) == len(written)
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(json.loads(text), engine.requests[0].json_schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "other", "arguments": {}}, engine.requests[0].json_schema)


def test_definitions_of_two_tools_do_not_mix(client: Any, engine: Any) -> None:
    def tool(name: str, kind: str) -> dict[str, Any]:
        parameters = {
            "type": "object",
            "properties": {"value": {"$ref": "#/$defs/Value"}},
            "required": ["value"],
            "$defs": {"Value": {"type": kind}},
        }
        return {"type": "function", "function": {"name": name, "parameters": parameters}}

    engine.write = script(parts=("{}",))
    tools = [tool("one", "string"), tool("two", "integer")]
    client.chat.completions.create(**ASK, tools=tools, tool_choice="required")
    jsonschema = pytest.importorskip("jsonschema")
    schema = engine.requests[0].json_schema
    jsonschema.validate({"name": "one", "arguments": {"value": "x"}}, schema)
    jsonschema.validate([{"name": "two", "arguments": {"value": 1}}], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": "one", "arguments": {"value": 1}}, schema)


def test_json_schemas_reach_the_engine(client: Any, engine: Any) -> None:
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    form = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    client.chat.completions.create(**ASK, response_format=form)
    client.chat.completions.create(**ASK, response_format={"type": "json_object"})
    client.chat.completions.create(**ASK, response_format={"type": "text"})
    assert [r.json_schema for r in engine.requests] == [schema, {"type": "object"}, None]


REFUSED: list[tuple[dict[str, Any], str, str]] = [
    ({"model": "other"}, "model", "model_not_found"),
    ({"extra_body": {"best_of": 2}}, "best_of", "unknown_parameter"),
    ({"extra_body": {"stream_options": {"x": 1}, "stream": True}}, "stream_options.x", "unknown"),
    ({"frequency_penalty": 0.1}, "frequency_penalty", "unsupported_parameter"),
    ({"logit_bias": {"5": 1}}, "logit_bias", "unsupported_parameter"),
    ({"reasoning_effort": "low"}, "reasoning_effort", "unsupported_parameter"),
    ({"store": True}, "store", "unsupported_parameter"),
    ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
    ({"temperature": 3}, "temperature", "invalid_value"),
    ({"temperature": "warm"}, "temperature", "invalid_value"),
    ({"n": 0}, "n", "invalid_value"),
    ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
    ({"stop": [""]}, "stop", "invalid_value"),
    ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens", "invalid_value"),
    ({"messages": []}, "messages", "invalid_value"),
    ({"messages": [{"role": "clown", "content": "x"}]}, "messages[0].role", "invalid_value"),
    ({"messages": [{"role": "user"}]}, "messages[0].content", "invalid_value"),
    (
        {"messages": [{"role": "tool", "tool_call_id": "x", "content": "x"}]},
        "messages[0].tool_call_id",
        "invalid_value",
    ),
    (
        {
            "messages": [
                {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}
            ]
        },
        "messages[0].content[0]",
        "invalid_value",
    ),
    ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
    ({"tools": [WEATHER, WEATHER]}, "tools[1].function.name", "invalid_value"),
    ({"model": "base", "tools": [WEATHER]}, "tools", "unsupported_parameter"),
    (
        {
            "tools": [WEATHER],
            "tool_choice": {"type": "function", "function": {"name": "other"}},
        },
        "tool_choice",
        "invalid_value",
    ),
    (
        {"tools": [WEATHER], "response_format": {"type": "json_object"}},
        "response_format",
        "unsupported_parameter",
    ),
    ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format.json_schema.schema",
        "missing_required_parameter",
    ),
]


@pytest.mark.parametrize(("changes", "param", "code"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_can_not_be_done_is_refused_by_name(
    client: Any, engine: Any, changes: dict[str, Any], param: str, code: str
) -> None:
    with pytest.raises(openai.APIStatusError) as caught:
        client.chat.completions.create(**{**ASK, **changes})
    error = caught.value
    assert error.param == param and str(error.code).startswith(code)
    assert error.type == "invalid_request_error" and error.request_id
    assert error.status_code == (404 if code == "model_not_found" else 400)
    assert not engine.requests


def test_values_that_change_nothing_are_taken(client: Any, engine: Any) -> None:
    client.chat.completions.create(
        **ASK,
        frequency_penalty=0,
        presence_penalty=0.0,
        logit_bias={},
        store=False,
        service_tier="auto",
        user="ada",
        metadata={"a": "b"},
        modalities=["text"],
        extra_body={"repetition_penalty": 1.0, "min_p": 0, "top_k": -1, "stop": None},
    )
    assert engine.requests[0].decoding.top_k == 0


def test_a_prompt_that_is_too_long_has_the_code_that_clients_detect(
    client: Any, engine: Any
) -> None:
    engine.write = script(error=PromptTooLong("Too long.", fix="shorten it.", field="prompt"))
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="maximum context length") as caught:
            client.chat.completions.create(**ASK, stream=stream)
        assert (caught.value.code, caught.value.param) == ("context_length_exceeded", "messages")


@pytest.mark.parametrize(
    ("field", "changes", "param"),
    [
        ("prompt", {}, "messages"),
        ("json_schema", {"response_format": {"type": "json_object"}}, "response_format"),
        ("json_schema", {"tools": [WEATHER], "tool_choice": "required"}, "tools"),
    ],
)
def test_an_error_of_the_engine_names_the_member_at_fault(
    client: Any, engine: Any, field: str, changes: dict[str, Any], param: str
) -> None:
    engine.write = script(error=RequestRefused("No.", fix="change it.", field=field))
    with pytest.raises(openai.BadRequestError, match="change it") as caught:
        client.chat.completions.create(**ASK, **changes)
    assert caught.value.param == param


def test_a_fault_of_the_engine_is_no_fault_of_the_request(client: Any, engine: Any) -> None:
    engine.write = script(error=EngineFailed("the model failed", fix="wait."))
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.status_code == 503 and caught.value.param is None


def test_a_failure_amid_a_stream_is_an_error_of_the_client(client: Any, engine: Any) -> None:
    engine.write = script(error=TrainerError("no memory", fix="wait."), error_after=2)
    got = []
    with pytest.raises(openai.APIError, match="no memory"):
        for chunk in client.chat.completions.create(**ASK, stream=True):
            got.append(chunk)
    assert joined(got) == "Hello there"


def test_a_full_queue_is_429_and_clients_try_again(client: Any, engine: Any) -> None:
    engine.max_open = 0
    with pytest.raises(openai.RateLimitError) as caught:
        client.chat.completions.create(**ASK)
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.code == "rate_limit_exceeded"
    engine.max_open = 1
    engine.write = script(delay=0.05)
    with pytest.raises(openai.RateLimitError):
        client.chat.completions.create(**ASK, n=2)
    retried = client.with_options(max_retries=1).chat.completions.create(**ASK)
    assert retried.choices[0].message.content == "Hello there."


def test_a_tool_nested_beyond_what_is_walked_through_is_the_bodys_fault(client: Any) -> None:
    parameters: dict[str, Any] = {"type": "string"}
    for _ in range(100):
        parameters = {"type": "array", "items": parameters}
    tool = {"type": "function", "function": {"name": "deep", "parameters": parameters}}
    with pytest.raises(openai.BadRequestError, match="nested more than 100 deep"):
        client.chat.completions.create(**ASK, tools=[tool], tool_choice="required")


def test_definitions_of_a_tool_that_are_no_object_reach_the_engine_as_they_are(
    engine: ScriptedEngine, client: Any
) -> None:
    tool = {"type": "function", "function": {"name": "odd", "parameters": {"$defs": [1]}}}
    client.chat.completions.create(**ASK, tools=[tool], tool_choice="required")
    assert engine.requests[-1].json_schema is not None


ARGUMENTS = {
    "nested deeply": '{"a": ' + "[" * 50_000 + "]" * 50_000 + "}",
    "cut off amid nesting": '{"a": ' + "[" * 50_000,
    "not a number": '{"a": NaN}',
    "half a surrogate pair": r'{"a": "\ud83d"}',
}


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
def test_arguments_that_no_model_reads_are_the_bodys_fault(client: Any, name: str) -> None:
    function = {"name": "get_weather", "arguments": ARGUMENTS[name]}
    called = {"role": "assistant", "tool_calls": [{"id": "c", "type": "function"}]}
    called["tool_calls"][0]["function"] = function  # type: ignore[index]
    messages = [*ASK["messages"], called]
    with pytest.raises(openai.BadRequestError, match="is not a JSON object as text"):
        client.chat.completions.create(**ASK | {"messages": messages}, tools=[WEATHER])


@pytest.mark.parametrize("name", sorted(ARGUMENTS))
@pytest.mark.parametrize("stream", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    "choice", [{"type": "function", "function": {"name": "get_weather"}}, "required"], ids=str
)
def test_a_call_that_can_not_be_passed_on_is_no_failure(
    client: Any, engine: Any, name: str, stream: bool, choice: Any
) -> None:
    written = ARGUMENTS[name]
    if choice == "required":
        written = '{"name": "get_weather", "arguments": ' + written
    engine.write = script(parts=(), tail=written, finish_reason="length")
    answer = client.chat.completions.create(
        **ASK, tools=[WEATHER], tool_choice=choice, stream=stream
    )
    [*_, last] = answer if stream else [answer]
    assert last.choices[0].finish_reason == "length"


def test_a_model_that_is_not_here_is_answered_with_those_that_are(client: Any) -> None:
    with pytest.raises(openai.NotFoundError, match="Models here: router, base"):
        client.chat.completions.create(**ASK | {"model": "other"})
