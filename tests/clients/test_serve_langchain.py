"""langchain-openai on `cloudft serve`: chat, streams, tools, JSON schemas, errors."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from conftest import Served
from langchain_core.exceptions import ContextOverflowError
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAI
from pydantic import BaseModel
from served_jobs import CALLER, ROUTER, question

QUESTION = str(question("Oslo")["content"])


def chat(served: Served, model: str, **options: Any) -> Any:
    """Return a chat model of LangChain."""
    return ChatOpenAI(
        model=model,
        base_url=f"{served.url}/v1",
        api_key="any",
        max_retries=0,
        max_tokens=80,
        **options,
    )


@tool
def find(city: str) -> str:
    """Find a parcel."""
    return f"In {city}."


class Place(BaseModel):
    """Where a parcel is."""

    found: bool


def test_an_answer_is_that_of_openai_s_client_whole_and_streamed(served: Served) -> None:
    model = chat(served, ROUTER)
    whole = model.invoke(QUESTION)
    assert whole.content == served.answer
    assert whole.usage_metadata["output_tokens"] == served.tokens
    pieces = list(chat(served, ROUTER, stream_usage=True).stream(QUESTION))
    assert "".join(piece.content for piece in pieces) == served.answer
    assert [p.usage_metadata for p in pieces if p.usage_metadata] == [whole.usage_metadata]
    assert [one.content for one in model.batch([QUESTION] * 4)] == [served.answer] * 4
    assert model.invoke([SystemMessage("Be brief."), HumanMessage(QUESTION)]).content


def test_logprobs_are_kept(served: Served) -> None:
    answer = chat(served, ROUTER).bind(logprobs=True, top_logprobs=2).invoke(QUESTION)
    content = answer.response_metadata["logprobs"]["content"]
    assert content and all(len(token["top_logprobs"]) == 2 for token in content)


def test_a_tool_is_called_and_its_result_answered(served: Served) -> None:
    model = chat(served, CALLER).bind_tools([served.tool])
    called = model.invoke(QUESTION)
    assert [call["name"] for call in called.tool_calls] == ["find"]
    streamed = None
    for piece in model.stream(QUESTION):
        streamed = piece if streamed is None else streamed + piece
    assert streamed is not None
    assert [c["args"] for c in streamed.tool_calls] == [c["args"] for c in called.tool_calls]
    [call] = called.tool_calls
    result = ToolMessage(find.invoke(call["args"]), tool_call_id=call["id"])
    assert model.invoke([HumanMessage(QUESTION), called, result]).usage_metadata


def test_a_call_is_certain_where_it_is_required(served: Served) -> None:
    for choice in ("any", "find"):
        model = chat(served, ROUTER).bind_tools([served.tool], tool_choice=choice)
        answer = model.invoke(QUESTION)
        if answer.response_metadata["finish_reason"] != "length":
            assert [call["name"] for call in answer.tool_calls] == ["find"]
            assert answer.tool_calls[0]["args"].keys() == {"city"}


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output_keeps_its_schema(served: Served, method: str) -> None:
    model = chat(served, ROUTER).with_structured_output(Place, method=method, include_raw=True)
    answer = model.invoke(QUESTION)
    if answer["raw"].response_metadata["finish_reason"] != "length":
        assert isinstance(answer["parsed"], Place), answer


def test_errors_are_those_of_openai_s_client(served: Served) -> None:
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        chat(served, "other").invoke(QUESTION)
    with pytest.raises(openai.BadRequestError, match="reasoning_effort"):
        chat(served, ROUTER, reasoning_effort="low").invoke(QUESTION)
    with pytest.raises(ContextOverflowError):
        chat(served, ROUTER).invoke("word " * 4000)


def test_plain_text_is_continued(served: Served) -> None:
    model = OpenAI(
        model="base",
        base_url=f"{served.url}/v1",
        api_key="any",
        max_retries=0,
        max_tokens=4,
        temperature=0,
    )
    assert model.invoke("Where") == "".join(model.stream("Where"))
