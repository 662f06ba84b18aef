"""litellm on `cloudft serve`: chat, streams, tools, JSON schemas, errors."""

from __future__ import annotations

import json
from typing import Any

import litellm
import pytest
from conftest import Served
from pydantic import BaseModel
from served_jobs import CALLER, ROUTER, question

MESSAGES = [question("Oslo")]


class Place(BaseModel):
    """Where a parcel is."""

    found: bool


def complete(served: Served, model: str, provider: str = "openai", **options: Any) -> Any:
    """Return litellm's answer by a model of the server."""
    return litellm.completion(
        model=f"{provider}/{model}",
        api_base=f"{served.url}/v1",
        api_key="any",
        num_retries=0,
        max_retries=0,
        **{"messages": MESSAGES, "max_tokens": 80, **options},
    )


@pytest.mark.parametrize("provider", ["openai", "hosted_vllm"])
def test_an_answer_is_that_of_openai_s_client_whole_and_streamed(
    served: Served, provider: str
) -> None:
    whole = complete(served, ROUTER, provider)
    assert whole.choices[0].message.content == served.answer
    assert whole.usage.completion_tokens == served.tokens
    chunks = list(
        complete(served, ROUTER, provider, stream=True, stream_options={"include_usage": True})
    )
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
    assert "".join(pieces) == served.answer
    assert chunks[-1].usage.completion_tokens == served.tokens


def test_parameters_beyond_openai_s_arrive(served: Served) -> None:
    sampled = {"temperature": 2.0, "top_k": 1, "seed": 3, "n": 2}
    answer = complete(served, ROUTER, **sampled)
    assert [choice.message.content for choice in answer.choices] == [served.answer] * 2


def test_a_tool_is_called_and_its_result_answered(served: Served) -> None:
    tools = [served.tool]
    message = complete(served, CALLER, tools=tools).choices[0].message
    [call] = message.tool_calls
    assert call.function.name == "find"
    rebuilt = litellm.stream_chunk_builder(list(complete(served, CALLER, tools=tools, stream=True)))
    [streamed] = rebuilt.choices[0].message.tool_calls
    assert streamed.function.arguments == call.function.arguments
    result = {"role": "tool", "tool_call_id": call.id, "name": "find", "content": "In Oslo."}
    answer = complete(served, CALLER, tools=tools, messages=[*MESSAGES, message, result])
    assert answer.usage.prompt_tokens > 0


def test_a_schema_is_kept(served: Served) -> None:
    [choice] = complete(served, ROUTER, response_format=Place).choices
    if choice.finish_reason != "length":
        assert json.loads(choice.message.content).keys() == {"found"}


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"model": "other"}, litellm.NotFoundError),
        ({"frequency_penalty": 0.5}, litellm.BadRequestError),
        (
            {"messages": [{"role": "user", "content": "word " * 4000}]},
            litellm.ContextWindowExceededError,
        ),
    ],
    ids=lambda value: str(value)[:30],
)
def test_errors_have_their_classes(
    served: Served, options: dict[str, Any], error: type[Exception]
) -> None:
    with pytest.raises(error):
        complete(served, **{"model": ROUTER, **options})


def test_plain_text_is_continued(served: Served) -> None:
    answer = litellm.text_completion(
        model="text-completion-openai/base",
        prompt=["Where", "What"],
        api_base=f"{served.url}/v1",
        api_key="any",
        max_tokens=4,
        logprobs=2,
    )
    assert [choice.index for choice in answer.choices] == [0, 1]
    assert all(len(choice.logprobs.tokens) <= 4 for choice in answer.choices)
