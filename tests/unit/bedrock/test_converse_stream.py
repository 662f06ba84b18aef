"""Answers of Bedrock that are read while they are generated."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, running_endpoint

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock.converse_stream import read_converse_stream
from cloudft.backends.bedrock.inference import DeployedModel
from cloudft.errors import CloudUnreachable, PermissionDenied
from cloudft.inference import CANCELED, AnswerDelta, AnswerEnd, GenerationConfig, Prompt

NOVA = "amazon.nova-lite-v1:0"
PROMPT = Prompt([{"role": "user", "content": "Where is the parcel for Oslo?"}])
CONFIG = GenerationConfig(12)


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as made:
        yield made


@pytest.fixture
def models(aws: Endpoint) -> DeployedModel:
    del aws
    return DeployedModel(Aws(AwsLocation()), {"base": NOVA, "tuned": NOVA})


def test_the_streamed_answer_is_that_of_converse(models: DeployedModel) -> None:
    [whole] = models.generate([PROMPT], ["base"], CONFIG)
    events = list(models.stream(PROMPT, ["base", "tuned"], CONFIG))
    first, second = (event.answer for event in events if isinstance(event, AnswerEnd))
    assert first == whole and second.variant == "tuned"
    deltas = [e.text for e in events if isinstance(e, AnswerDelta) and e.variant == "base"]
    assert len(deltas) > 1 and "".join(deltas) == whole.text


def test_cancel_ends_this_answer_and_those_after_it(models: DeployedModel) -> None:
    events = []
    for event in models.stream(PROMPT, ["base", "tuned"], CONFIG):
        events.append(event)
        models.cancel()
    *deltas, end = events
    assert isinstance(end, AnswerEnd) and end.answer.finish_reason == CANCELED
    assert len(deltas) == 1 and end.answer.text == deltas[0].text  # type: ignore[union-attr]
    assert len(list(models.stream(PROMPT, ["base"], CONFIG))) > 2, "it is usable after that"


def test_without_the_permission_to_stream_the_answer_arrives_whole(
    models: DeployedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = Aws.call

    def refuse_streams(self: Aws, failure: str, service: str, operation: str, **more: Any) -> Any:
        if operation == "converse_stream":
            raise PermissionDenied(failure)
        return call(self, failure, service, operation, **more)

    monkeypatch.setattr(Aws, "call", refuse_streams)
    delta, end = models.stream(PROMPT, ["base"], CONFIG)
    assert isinstance(delta, AnswerDelta) and isinstance(end, AnswerEnd)
    assert delta.text == end.answer.text != ""


class Events(list[dict[str, Any]]):
    """An event stream that can be closed; an exception in it is raised."""

    is_closed = False

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for event in super().__iter__():
            if "raise" in event:
                raise event["raise"]
            yield event

    def close(self) -> None:
        self.is_closed = True


def part(index: int, **delta: Any) -> dict[str, Any]:
    return {"contentBlockDelta": {"contentBlockIndex": index, "delta": delta}}


TOOL_USE = {
    "contentBlockStart": {
        "contentBlockIndex": 2,
        "start": {"toolUse": {"toolUseId": "t1", "name": "find"}},
    }
}


def test_reasoning_and_tool_calls_are_put_together() -> None:
    events = Events(
        [
            {"messageStart": {"role": "assistant"}},
            part(0, reasoningContent={"text": "It is "}),
            part(0, reasoningContent={"text": "north."}),
            part(0, reasoningContent={"signature": "x"}),
            part(1, text="I look."),
            {"contentBlockStop": {"contentBlockIndex": 1}},
            TOOL_USE,
            part(2, toolUse={"input": '{"city": '}),
            part(2, toolUse={"input": '"Oslo"}'}),
            {"messageStop": {"stopReason": "tool_use"}},
            {"metadata": {"usage": {"inputTokens": 3, "outputTokens": 9, "totalTokens": 12}}},
        ]
    )
    *deltas, end = read_converse_stream(Aws(AwsLocation()), events, "tuned", threading.Event())
    assert [(d.text, d.reasoning) for d in deltas] == [  # type: ignore[union-attr]
        ("", "It is "),
        ("", "north."),
        ("I look.", ""),
    ]
    assert isinstance(end, AnswerEnd) and end.answer.tokens == 9
    assert end.answer.text == 'I look.\n{"name": "find", "arguments": {"city": "Oslo"}}'
    assert end.answer.reasoning == "It is north." and events.is_closed


def test_half_a_tool_call_of_a_canceled_answer_is_left_out() -> None:
    canceled = threading.Event()
    canceled.set()
    aws = Aws(AwsLocation())
    [end] = read_converse_stream(aws, Events([TOOL_USE, part(1, text="x")]), "tuned", canceled)
    assert isinstance(end, AnswerEnd) and end.answer.text == ""


def test_an_error_within_the_stream_is_one_of_cloudft() -> None:
    from botocore.exceptions import EventStreamError

    response = {"Error": {"Code": "throttlingException", "Message": "too fast"}}
    events = Events([part(0, text="x"), {"raise": EventStreamError(response, "ConverseStream")}])
    reading = read_converse_stream(Aws(AwsLocation()), events, "tuned", threading.Event())
    assert isinstance(next(reading), AnswerDelta)
    with pytest.raises(CloudUnreachable, match="can't be invoked"):
        next(reading)
    assert events.is_closed
