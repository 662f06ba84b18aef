"""anthropic: AnthropicBedrock."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from conftest import CLAUDE, MAX_TOKENS, PROMPT, REGION, ROOM, Expected

KEYS = {"aws_region": REGION, "aws_access_key": "any", "aws_secret_key": "any", "max_retries": 0}
MESSAGES = [{"role": "user", "content": PROMPT}]


@pytest.fixture
def client(url: str) -> anthropic.AnthropicBedrock:
    return anthropic.AnthropicBedrock(base_url=url, **KEYS)


def test_a_message_is_that_of_converse_whole_and_streamed(
    client: anthropic.AnthropicBedrock, expected: Expected
) -> None:
    whole = client.messages.create(model=CLAUDE, max_tokens=MAX_TOKENS, messages=MESSAGES)
    with client.messages.stream(model=CLAUDE, max_tokens=MAX_TOKENS, messages=MESSAGES) as stream:
        pieces = list(stream.text_stream)
        streamed = stream.get_final_message()
    assert len(pieces) > 1 and "".join(pieces) == expected.text
    for message in (whole, streamed):
        assert message.content[0].text == expected.text
        assert message.stop_reason == "max_tokens"
        assert message.usage.input_tokens == expected.input_tokens
        assert message.usage.output_tokens == expected.output_tokens


def test_a_system_prompt_changes_the_answer(
    client: anthropic.AnthropicBedrock, expected: Expected
) -> None:
    message = client.messages.create(
        model=CLAUDE, max_tokens=MAX_TOKENS, messages=MESSAGES, system="You route tickets."
    )
    assert message.usage.input_tokens > expected.input_tokens


def test_tools_are_refused_by_a_stand_in_without_them(client: anthropic.AnthropicBedrock) -> None:
    tool = {"name": "find", "input_schema": {"type": "object"}}
    with pytest.raises(anthropic.BadRequestError, match="This model doesn't support tool use"):
        client.messages.create(model=CLAUDE, max_tokens=8, messages=MESSAGES, tools=[tool])


PAINT = {
    "type": "object",
    "properties": {"color": {"enum": ["red", "green"]}, "is_dark": {"type": "boolean"}},
    "required": ["color", "is_dark"],
    "additionalProperties": False,
}


def test_a_tool_is_called_and_a_schema_kept_whole_and_streamed(tools_url: str) -> None:
    client = anthropic.AnthropicBedrock(base_url=tools_url, **KEYS)
    request: dict[str, Any] = {
        "model": CLAUDE,
        "max_tokens": ROOM,
        "messages": MESSAGES,
        "tools": [{"name": "paint", "input_schema": PAINT, "strict": True}],
        "tool_choice": {"type": "any"},
    }
    whole = client.messages.create(**request)
    with client.messages.stream(**request) as stream:
        streamed = stream.get_final_message()
    for message in (whole, streamed):
        assert message.stop_reason == "tool_use"
        assert message.content[0].name == "paint"
        assert set(message.content[0].input) == {"color", "is_dark"}
    output = {"format": {"type": "json_schema", "schema": PAINT}}
    answer = client.messages.create(
        model=CLAUDE, max_tokens=ROOM, messages=MESSAGES, extra_body={"output_config": output}
    )
    assert set(json.loads(answer.content[0].text)) == {"color", "is_dark"}


def test_a_stream_that_breaks_is_an_error(url: str, break_streams: Any) -> None:
    break_streams("InvokeModelWithResponseStream")
    client = anthropic.AnthropicBedrock(base_url=url, **KEYS)
    with (
        pytest.raises(Exception, match="It broke"),
        client.messages.stream(model=CLAUDE, max_tokens=MAX_TOKENS, messages=MESSAGES) as stream,
    ):
        stream.get_final_message()


def test_messages_of_bedrock_mantle_are_refused_by_their_path(url: str) -> None:
    client = anthropic.AnthropicBedrockMantle(base_url=f"{url}/anthropic", **KEYS)
    with pytest.raises(anthropic.NotFoundError) as caught:
        client.messages.create(model=CLAUDE, max_tokens=8, messages=MESSAGES)
    assert "bedrock-mantle has no operation at /anthropic/v1/messages" in str(caught.value)
