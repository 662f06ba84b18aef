"""Tools in requests of Converse and in its responses, and where they can't be sent."""

from __future__ import annotations

from typing import Any, cast

import botocore.session
import pytest
from botocore.validate import ParamValidator

from cloudft.backends.bedrock.converse import (
    ConverseResponse,
    converse_request,
    parse_converse_response,
)
from cloudft.backends.bedrock.model_import.inference import chat_completion
from cloudft.data.formats.recognizer import parse_record
from cloudft.data.formats.record import Conversation
from cloudft.errors import UsageError
from cloudft.evaluate.advise.bm25 import Bm25Index
from cloudft.evaluate.advise.prompting import few_shot_prompt, retrieval_prompt
from cloudft.evaluate.held_out import EvalExample
from cloudft.inference import GenerationConfig
from cloudft.jobs.prompts import GenerationPrompt, prompt_of_record

CALL = {
    "id": "c",
    "type": "function",
    "function": {"name": "find", "arguments": '{"city": "Bern"}'},
}
ASKED = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Where is parcel 7?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
]
ANSWERED = [
    *ASKED,
    {"role": "tool", "tool_call_id": "c", "content": "In Bern."},
    {"role": "assistant", "content": "Bern."},
]
TOOLS = [{"type": "function", "function": {"name": "find", "parameters": {"type": "object"}}}]


def built(messages: list[dict[str, Any]]) -> GenerationPrompt:
    """Return the prompt of a record with tools."""
    record = parse_record({"messages": messages, "tools": TOOLS}, {})
    assert isinstance(record, Conversation)
    return prompt_of_record(record, raw=False)


CLAUDE, NOVA = "us.anthropic.claude-sonnet-4-5-20250929-v1:0", "amazon.nova-pro-v1:0"


@pytest.mark.parametrize(
    ("model", "config", "expected"),
    [
        (CLAUDE, GenerationConfig(temperature=0.0), {"temperature": 0.0}),
        (NOVA, GenerationConfig(temperature=0.0), {"temperature": 0.0}),
        (CLAUDE, GenerationConfig(temperature=1.0), {"temperature": 1.0}),
        (NOVA, GenerationConfig(temperature=1.0), {"temperature": 1.0, "topP": 1.0}),
        (CLAUDE, GenerationConfig(temperature=1.0, top_p=0.5), {"temperature": 1.0, "topP": 0.5}),
    ],
)
def test_top_p_is_sent_where_it_has_an_effect(
    model: str, config: GenerationConfig, expected: dict[str, float]
) -> None:
    """Claude refuses it beside a temperature; Nova's default is below 1."""
    request = converse_request(built(ANSWERED).prompt, config, model)
    sent = dict(request["inferenceConfig"])
    assert sent.pop("maxTokens") == config.max_new_tokens and sent == expected


def test_a_request_of_converse_has_the_tools_and_every_turn() -> None:
    request = converse_request(built(ANSWERED).prompt, GenerationConfig(), NOVA)
    shape = botocore.session.get_session().get_service_model("bedrock-runtime")
    checked = ParamValidator().validate(
        {"modelId": "m", **request}, shape.operation_model("Converse").input_shape
    )
    assert not checked.has_errors(), checked.generate_report()
    assert [block for turn in request["messages"] for block in turn["content"]] == [
        {"text": "Where is parcel 7?"},
        {"toolUse": {"toolUseId": "c", "name": "find", "input": {"city": "Bern"}}},
        {"toolResult": {"toolUseId": "c", "content": [{"text": "In Bern."}]}},
    ]
    assert request["toolConfig"]["tools"][0]["toolSpec"]["name"] == "find"


def test_a_call_in_a_response_is_the_text_of_the_reference() -> None:
    content = [
        {"reasoningContent": {"reasoningText": {"text": "Hm."}}},
        {"toolUse": {"toolUseId": "x", "name": "find", "input": {"city": "Bern"}}},
    ]
    response = {
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": "tool_use",
        "usage": {"outputTokens": 9},
    }
    answer = parse_converse_response(cast("ConverseResponse", response), 0, "tuned")
    assert (
        answer.text == built(ASKED).reference == '{"name": "find", "arguments": {"city": "Bern"}}'
    )
    assert (answer.reasoning, answer.finish_reason) == ("Hm.", "stop")


def test_an_imported_model_without_converse_gets_no_tools() -> None:
    with pytest.raises(UsageError, match="tools and reasoning can't be sent"):
        chat_completion(cast("Any", None), "m", 0, "tuned", built(ASKED).prompt, GenerationConfig())


def example(messages: list[dict[str, Any]]) -> EvalExample:
    """Return a held-out record of that chat."""
    made = built(messages)
    return EvalExample("k", "f", 1, made.prompt, made.shown, str(made.reference), made.reply)


def test_examples_of_few_shot_keep_their_calls_and_results() -> None:
    pytest.importorskip("bm25s")
    shot, question = example(ANSWERED), example(ASKED)
    prompt = few_shot_prompt(question, [shot], Bm25Index(["Where is parcel 7?", "Other words."]))
    roles = ["system", "user", "assistant", "user", "assistant", "user"]
    assert [message["role"] for message in prompt.messages] == roles
    assert "toolUse" in prompt.messages[2]["content"][0]
    assert "toolResult" in prompt.messages[3]["content"][0]
    assert prompt.tool_config == question.prompt.tool_config
    # A tool's result is no question that passages can be put before.
    assert retrieval_prompt(shot, Bm25Index(["In Bern."])) is shot.prompt
