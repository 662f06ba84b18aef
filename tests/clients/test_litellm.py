"""litellm: each way that a model id of `bedrock/` chooses."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from conftest import CLAUDE, MAX_TOKENS, NOVA, PROMPT, REGION, Expected

LLAMA = "us.meta.llama3-1-8b-instruct-v1:0"
TOOL = {
    "name": "find",
    "description": "Find it.",
    "parameters": {"type": "object", "properties": {}},
}


def complete(url: str, model: str, **more: Any) -> Any:
    return litellm.completion(
        model=model,
        messages=[{"role": "user", "content": PROMPT}],
        max_tokens=MAX_TOKENS,
        aws_bedrock_runtime_endpoint=url,
        aws_region_name=REGION,
        **more,
    )


@pytest.mark.parametrize(
    "model",
    [
        f"bedrock/{NOVA}",
        f"bedrock/converse/{NOVA}",
        f"bedrock/invoke/{NOVA}",
        f"bedrock/converse/{CLAUDE}",
        f"bedrock/invoke/{CLAUDE}",
    ],
)
def test_a_completion_is_that_of_converse_whole_and_streamed(
    url: str, expected: Expected, model: str
) -> None:
    answer = complete(url, model)
    assert answer.choices[0].message.content == expected.text
    assert answer.choices[0].finish_reason == "length"
    chunks = list(complete(url, model, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text
    assert chunks[-1].choices[0].finish_reason == "length"


def test_litellm_does_not_read_why_llama_ended(url: str, expected: Expected, boto: Any) -> None:
    body = json.dumps({"prompt": PROMPT, "max_gen_len": MAX_TOKENS})
    answer = boto("bedrock-runtime").invoke_model(modelId=LLAMA, body=body)
    assert json.load(answer["body"])["stop_reason"] == "length"
    choice = complete(url, f"bedrock/invoke/{LLAMA}").choices[0]
    assert (choice.message.content, choice.finish_reason) == (expected.text, "stop")
    chunks = complete(url, f"bedrock/invoke/{LLAMA}", stream=True)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == expected.text


@pytest.mark.parametrize("model", [f"bedrock/converse/{NOVA}", f"bedrock/invoke/{CLAUDE}"])
def test_usage_is_that_of_converse(url: str, expected: Expected, model: str) -> None:
    usage = complete(url, model).usage
    assert usage.prompt_tokens == expected.input_tokens
    assert usage.completion_tokens == expected.output_tokens


@pytest.mark.parametrize("model", ["amazon.titan-text-express-v1", "cohere.command-text-v14"])
def test_a_text_model_answers_whole_as_streamed(url: str, model: str) -> None:
    text = complete(url, f"bedrock/{model}").choices[0].message.content
    chunks = complete(url, f"bedrock/{model}", stream=True)
    assert text and "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == text


def test_tools_are_refused_by_a_stand_in_without_them(url: str) -> None:
    tools = [{"type": "function", "function": TOOL}]
    with pytest.raises(litellm.BadRequestError, match="This model doesn't support tool use"):
        complete(url, f"bedrock/converse/{NOVA}", tools=tools)
