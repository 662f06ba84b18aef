"""langchain-aws: ChatBedrockConverse, ChatBedrock and BedrockLLM."""

from __future__ import annotations

from typing import Any

import pytest
from botocore.exceptions import ClientError
from conftest import CLAUDE, MAX_TOKENS, NOVA, PROMPT, REGION, Expected
from langchain_aws import BedrockLLM, ChatBedrock, ChatBedrockConverse
from pydantic import BaseModel


class City(BaseModel):
    """A city."""

    name: str


def converse(url: str) -> ChatBedrockConverse:
    return ChatBedrockConverse(
        model=NOVA, endpoint_url=url, region_name=REGION, max_tokens=MAX_TOKENS
    )


def claude(url: str) -> ChatBedrock:
    options = {"max_tokens": MAX_TOKENS}
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


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (converse, "This model doesn't support the toolConfig.toolChoice.tool field"),
        (claude, "tool_choice.type: this model doesn't support tool. Send auto or none."),
    ],
)
def test_structured_output_is_refused_by_a_stand_in_without_tools(
    url: str, make: Any, words: str
) -> None:
    with pytest.raises(ClientError) as caught:
        make(url).with_structured_output(City).invoke(PROMPT)
    assert caught.value.response["Error"]["Code"] == "ValidationException"
    assert words in caught.value.response["Error"]["Message"]


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
