"""Requests to OpenAI-compatible servers: what is sent, what is retried, and how errors read."""

from __future__ import annotations

from typing import Any

import pytest
from openai_stand_in import OpenAIStandIn, Reply, completion, error

from cloudft.errors import CloudRefused, CloudUnreachable, UsageError
from cloudft.inference import GenerationConfig, Prompt
from cloudft.runtimes import openai_client
from cloudft.runtimes.chat_request import build_request, parse_reply, to_openai_messages
from cloudft.runtimes.openai_client import OpenAIClient, normalize_url
from cloudft.runtimes.served_model import find_served_model

KEY = "a-key-that-nobody-prints"


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_client, "_wait_seconds", lambda state: 0.0)
    for name in openai_client.KEY_VARIABLES:
        monkeypatch.delenv(name, raising=False)


def send(stand_in: OpenAIStandIn) -> dict[str, Any]:
    return OpenAIClient(stand_in.url).post("/v1/chat/completions", {"model": "tuned"})


@pytest.mark.parametrize("status", [429, 500, 502, 503])
def test_a_busy_server_gets_the_request_again(status: int) -> None:
    replies = [error(status, "busy"), error(status, "busy"), completion("yes")]
    with OpenAIStandIn(lambda body, key: replies.pop(0)).serving() as stand_in:
        assert send(stand_in)["choices"][0]["message"]["content"] == "yes"
        assert len(stand_in.bodies) == 3


def test_a_server_that_stays_busy_is_named_with_its_own_words() -> None:
    with OpenAIStandIn(lambda body, key: error(503, "loading model")).serving() as stand_in:
        with pytest.raises(CloudUnreachable, match="503 after 6 attempts: loading model") as caught:
            send(stand_in)
        assert "cached" in str(caught.value.fix)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(CloudUnreachable, match=r"http://127.0.0.1:9 can't be reached"):
        OpenAIClient("http://127.0.0.1:9", attempts=2).get("/v1/models")


def test_a_refusal_is_not_repeated() -> None:
    with OpenAIStandIn(lambda body, key: error(400, "too long")).serving() as stand_in:
        with pytest.raises(CloudRefused, match="400: too long"):
            send(stand_in)
        assert len(stand_in.bodies) == 1


@pytest.mark.parametrize("variable", sorted(openai_client.KEY_VARIABLES))
def test_the_key_of_the_environment_is_sent_and_never_shown(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, KEY)
    seen: list[str] = []

    def answer(body: dict[str, Any], key: str) -> Reply:
        seen.append(key)
        return error(401, "no such key")

    with OpenAIStandIn(answer).serving() as stand_in, pytest.raises(CloudRefused) as caught:
        send(stand_in)
    assert seen == [f"Bearer {KEY}"]
    assert "refuses the API key" in caught.value.message
    assert KEY not in caught.value.message + str(caught.value.fix)
    assert openai_client.KEY_VARIABLES[0] in str(caught.value.fix)


def test_a_redirect_is_not_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(openai_client.KEY_VARIABLES[0], KEY)
    elsewhere = OpenAIStandIn(lambda body, key: completion("stolen"))
    with elsewhere.serving():
        moved = (307, b"", {"Location": f"{elsewhere.url}/v1/chat/completions"})
        stand_in = OpenAIStandIn(lambda body, key: moved)
        with stand_in.serving(), pytest.raises(CloudRefused, match="307"):
            send(stand_in)
    assert elsewhere.bodies == []


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"\xff"])
def test_a_page_that_is_no_api_is_named(body: bytes) -> None:
    stand_in = OpenAIStandIn(lambda request, key: (200, body, {}))
    with stand_in.serving(), pytest.raises(CloudRefused, match="no JSON object"):
        send(stand_in)


@pytest.mark.parametrize("reply", [{}, {"choices": []}, {"choices": [{"message": 3}]}])
def test_a_reply_without_an_answer_is_named(reply: dict[str, Any]) -> None:
    with pytest.raises(CloudRefused, match="without an answer"):
        parse_reply(reply, 0, "tuned", "http://x")


def test_urls_are_taken_with_and_without_version_and_never_with_a_password() -> None:
    for url in ("http://h:1", "http://h:1/", "http://h:1/v1", "http://h:1/v1/"):
        assert normalize_url(url) == "http://h:1"
    for url in ("h:1", "ftp://h", "http://", "http://u:p@h/v1", "http://h/v1?key=1"):
        with pytest.raises(UsageError):
            normalize_url(url)


def test_a_model_that_the_server_does_not_list_is_refused() -> None:
    """llama.cpp's server answers with its one model, whatever name a request has."""
    models = ["other", "router:latest"]
    with OpenAIStandIn(lambda body, key: completion("x"), models).serving() as stand_in:
        server = OpenAIClient(stand_in.url)
        with pytest.raises(UsageError, match="no model 'tuned': it lists other, router:latest"):
            find_served_model(server, "tuned")
        with pytest.raises(UsageError) as missing_base:
            find_served_model(server, "base", option="--engine-base")
        assert missing_base.value.fix == "name one that it lists: --engine-base NAME"
        with pytest.raises(UsageError, match="several models"):
            find_served_model(server, None)
        assert find_served_model(server, "router").name == "router"
        assert find_served_model(server, None, ("missing", "other")).name == "other"


def test_another_model_under_the_same_name_has_another_key() -> None:
    answer = "red"
    with OpenAIStandIn(lambda body, key: completion(answer)).serving() as stand_in:
        server = OpenAIClient(stand_in.url)
        first = find_served_model(server, None)
        assert find_served_model(server, None).answer_key == first.answer_key
        answer = "blue"
        assert find_served_model(server, None).answer_key != first.answer_key


def test_a_conversation_with_tools_is_written_as_the_trainer_renders_it() -> None:
    from local_backend.data.chat_messages import to_chat

    turns = [
        {"role": "user", "content": [{"text": "Weather?"}]},
        {
            "role": "assistant",
            "content": [
                {"reasoningContent": {"reasoningText": {"text": "I look."}}},
                {"text": "A moment."},
                {"toolUse": {"toolUseId": "a", "name": "look", "input": {"city": "Köln"}}},
            ],
        },
        {
            "role": "user",
            "content": [
                {
                    "toolResult": {
                        "toolUseId": "a",
                        "content": [{"json": {"t": 3}}],
                        "status": "error",
                    }
                }
            ],
        },
    ]
    schema = {"json": {"type": "object"}}
    config = {"tools": [{"toolSpec": {"name": "look", "inputSchema": schema}}]}
    prompt = Prompt([{"role": "system", "content": "Be brief."}, *turns], tool_config=config)
    record = {"system": [{"text": "Be brief."}], "messages": turns, "toolConfig": config}
    chat = to_chat(record, "converse")

    messages = to_openai_messages(prompt)
    [call] = messages[2]["tool_calls"]
    assert call["function"]["arguments"] == '{"city": "Köln"}'
    call["function"]["arguments"] = {"city": "Köln"}  # a text in OpenAI's API, an object here
    assert messages == chat.messages
    path, body = build_request(prompt, "m", GenerationConfig(max_new_tokens=5))
    assert path == "/v1/chat/completions"
    assert body["tools"] == list(chat.tools)
    assert (body["temperature"], body["max_tokens"]) == (0.0, 5)


def test_calls_and_reasons_are_read_from_a_reply() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    _, body, _ = completion(None, finish="tool_calls", calls=[call])
    assert isinstance(body, dict)
    answer = parse_reply(body, 4, "tuned", "http://x")
    assert (answer.text, answer.finish_reason) == (
        '{"name": "look", "arguments": {"a": 1}}',
        "stop",
    )
    assert (answer.index, answer.tokens, answer.prompt_tokens) == (4, 3, 9)
    _, cut, _ = completion("wor", finish="length")
    assert isinstance(cut, dict)
    assert parse_reply(cut, 0, "tuned", "http://x").finish_reason == "length"
