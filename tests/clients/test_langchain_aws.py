"""langchain-aws: ChatBedrockConverse, ChatBedrock and BedrockLLM."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from botocore.exceptions import ClientError
from conftest import CLAUDE, MAX_TOKENS, NOVA, PROMPT, REGION, ROOM, Expected
from langchain_aws import BedrockLLM, ChatBedrock, ChatBedrockConverse
from pydantic import BaseModel


class Paint(BaseModel):
    """A paint."""

    color: Literal["red", "green"]
    is_dark: bool


def converse(url: str, max_tokens: int = MAX_TOKENS) -> ChatBedrockConverse:
    return ChatBedrockConverse(
        model=NOVA, endpoint_url=url, region_name=REGION, max_tokens=max_tokens
    )


def claude(url: str, max_tokens: int = MAX_TOKENS) -> ChatBedrock:
    options = {"max_tokens": max_tokens}
    return ChatBedrock(model_id=CLAUDE, endpoint_url=url, region_name=REGION, model_kwargs=options)


@pytest.mark.parametrize("make", [converse, claude])
def test_a_chat_model_answers_and_streams_with_usage(
    url: str, expected: Expected, make: Any
) -> None:
    model = make(url)
    answer = model.invoke(PROMPT)
    chunks = list(model.stream(PROMPT))
    streamed = chunks[0]
    for chunk in chunks[1:]:
        streamed += chunk
    for message in (answer, streamed):
        assert message.text == expected.text
        usage = message.usage_metadata
        assert usage["input_tokens"] == expected.input_tokens
        assert usage["output_tokens"] == expected.output_tokens
        assert usage["total_tokens"] == expected.input_tokens + expected.output_tokens
    assert len([chunk for chunk in chunks if chunk.text]) > 1


@pytest.mark.parametrize("make", [converse, claude])
def test_structured_output_is_refused_by_a_stand_in_without_tools(url: str, make: Any) -> None:
    with pytest.raises(ClientError) as caught:
        make(url).with_structured_output(Paint).invoke(PROMPT)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert "This model doesn't support tool use" in caught.value.response["Error"]["Message"]


@pytest.mark.parametrize("make", [converse, claude])
def test_structured_output_is_made_by_a_stand_in_with_tools(tools_url: str, make: Any) -> None:
    model = make(tools_url, ROOM).with_structured_output(Paint)
    assert isinstance(model.invoke(PROMPT), Paint)
    *_, last = model.stream(PROMPT)
    assert isinstance(last, Paint)


def test_chat_bedrock_writes_the_prompt_of_llama_itself(url: str, expected: Expected) -> None:
    model = ChatBedrock(
        model_id="us.meta.llama3-1-8b-instruct-v1:0",
        endpoint_url=url,
        region_name=REGION,
        model_kwargs={"max_gen_len": MAX_TOKENS},
    )
    answer = model.invoke(PROMPT)
    assert answer.text == expected.text


@pytest.mark.parametrize(
    ("model", "limit"),
    [("amazon.titan-text-express-v1", "maxTokenCount"), ("cohere.command-text-v14", "max_tokens")],
)
def test_bedrock_llm_completes_a_text(url: str, expected: Expected, model: str, limit: str) -> None:
    llm = BedrockLLM(
        model_id=model, endpoint_url=url, region_name=REGION, model_kwargs={limit: MAX_TOKENS}
    )
    assert llm.invoke(PROMPT) == expected.text
