"""Answers that are reported while they are generated."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from trainer_run import TrainerRun

from local_backend.inference.answer_preview import AnswerPreview, settled_parts
from local_backend.inference.answers import AnswerForm, CallMarks
from local_backend.inference.generate import answer_prompts, rate_tokens, score_continuations
from local_backend.inference.model_variants import ModelVariants
from local_backend.inference.request_lines import RequestLines
from local_backend.inference.stream import stream_answers
from local_backend.job_dir import JobDir
from local_backend.settings import read_settings

PROMPT = {"messages": [{"role": "user", "content": "Where is parcel 3?"}]}
BOTH = ["tuned", "base"]


@pytest.fixture(scope="module")
def models(tuned: TrainerRun) -> ModelVariants:
    job_dir = JobDir(tuned.path)
    return ModelVariants(job_dir, read_settings(job_dir))


def stream(
    models: ModelVariants, request: dict[str, Any], cancel_after: int | None = None
) -> list[dict[str, Any]]:
    """Return all replies to a stream, which is canceled at a call of `is_canceled`."""
    replies: list[dict[str, Any]] = []
    calls = itertools.count()
    stream_answers(
        models,
        request,
        lambda reply: replies.append(dict(reply)),
        lambda: next(calls) == cancel_after,
    )
    return replies


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("prompt", [PROMPT, {"text": "Where"}], ids=["chat", "text"])
def test_a_streamed_answer_is_the_generated_one(
    models: ModelVariants, prompt: dict[str, Any], temperature: float
) -> None:
    settings = {"variants": BOTH, "maxNewTokens": 60, "temperature": temperature, "seed": 11}
    whole = list(answer_prompts(models, {"prompts": [prompt], **settings}))
    replies = stream(models, {"stream": prompt, **settings})
    for expected in whole:
        own = [reply for reply in replies if reply["variant"] == expected["variant"]]
        *deltas, end = own
        assert "".join(delta["delta"] for delta in deltas) == expected["text"]
        assert {key: end[key] for key in ("text", "tokens", "finishReason", "promptTokens")} == {
            key: expected[key] for key in ("text", "tokens", "finishReason", "promptTokens")
        }
        assert len(end["ids"]) == end["tokens"]
        assert [d["tokens"] for d in deltas] == sorted({d["tokens"] for d in deltas})
    assert len([reply for reply in replies if "delta" in reply]) > 8, "it came in pieces"


def test_a_canceled_answer_ends_with_the_token_under_way(models: ModelVariants) -> None:
    request = {"stream": {"text": "Where"}, "variants": ["base", "tuned"], "maxNewTokens": 60}
    *deltas, end = stream(models, request, cancel_after=4)
    assert end["finishReason"] == "canceled" and end["tokens"] == 4
    assert end["text"] == "".join(delta["delta"] for delta in deltas)
    assert all(reply["variant"] == "base" for reply in (*deltas, end)), "the other has not begun"
    [never] = stream(models, request, cancel_after=0)
    assert (never["finishReason"], never["tokens"]) == ("canceled", 0)


def test_half_a_character_waits_for_its_other_half(models: ModelVariants) -> None:
    text = "a\U0001f4e6ü!"
    ids = models.tuned.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(ids) == 1 + 4 + 2 + 1, "this tokenizer has one token a byte for them"
    preview = AnswerPreview(models.tuned, {"text": ""})
    parts = [preview.advance(ids[: n + 1])[0] for n in range(len(ids))]
    assert parts == ["a", "", "", "", "\U0001f4e6", "", "ü", "!"]


CALLS = CallMarks('<call>{"name": "', '{"name": "', '", "arguments": ')
FORMS = {
    "plain": (AnswerForm(), ["One <b>answer</b>.", " ", "<", "<think", "<think>never closed"]),
    "marked": (AnswerForm(before_text="\n\n"), ["\n\nYes.", "\nYes.", "Yes.\n\n"]),
    "reasoning": (
        AnswerForm(before_thought="<think>\n", after_thought="\n</think>\n\n"),
        [
            "<think>\nIt < is </ there.\n</think>\n\nIn Lyon.",
            "<think></think>Bonn",
            "No <thought>.",
        ],
    ),
    "opened by the prompt": (
        AnswerForm(before_thought="", after_thought="\n</think>\n\n"),
        ["First.\nSecond.\n</think>\n\nIn Lyon.", "no mark at all"],
    ),
    "call after a mark that some leave out": (
        AnswerForm(calls=CallMarks('[TOOL_CALLS] [{"name": "', '{"name": "', '", "arguments": ')),
        [
            'I look. {"name": "find", "arguments": {}}',
            'It is [here]: [TOOL_CALLS] [{"name": "find", "arguments": {}}]',
        ],
    ),
    "calls": (
        AnswerForm(calls=CALLS),
        [
            'I look. <call>{"name": "find", "arguments": {"city": "Bonn"}}</call>',
            "2 < 3, and <calm>",
            '\n{"name": "find", "arguments": {}}',
            " spaced",
        ],
    ),
}


@pytest.mark.parametrize("name", sorted(FORMS))
def test_what_is_shown_is_never_taken_back(name: str) -> None:
    form, replies = FORMS[name]
    for raw in replies:
        answer = form.parse(raw)
        text, reasoning = (answer.text, answer.reasoning) if answer else (raw, "")
        seen = [settled_parts(form, raw[:end]) for end in range(len(raw) + 1)]
        for (before, thought), (after, further) in itertools.pairwise(seen):
            assert after.startswith(before) and further.startswith(thought), raw
        assert text.startswith(seen[-1][0]), raw
        if reasoning:
            assert reasoning.startswith(seen[-1][1]), raw


def test_reasoning_and_text_are_shown_as_they_come() -> None:
    form, [raw, *_] = FORMS["reasoning"]
    middle = raw.index(" there")
    assert settled_parts(form, raw[:middle]) == ("", "It < is")
    assert settled_parts(form, raw[:-3]) == ("In Ly", "It < is </ there.")


@pytest.fixture
def lines() -> Iterator[tuple[RequestLines, int]]:
    """Requests from a pipe, and its writing end."""
    read_end, write_end = os.pipe()
    yield RequestLines(read_end), write_end
    os.close(read_end)


def send(descriptor: int, *requests: dict[str, Any]) -> None:
    os.write(descriptor, "".join(json.dumps(request) + "\n" for request in requests).encode())


def test_cancel_is_seen_between_tokens_and_no_request_is_lost(
    lines: tuple[RequestLines, int],
) -> None:
    reader, writer = lines
    send(writer, {"stream": 1})
    requests = iter(reader)
    assert next(requests) == {"stream": 1}
    assert not reader.is_canceled()
    os.write(writer, b'{"can')
    assert not reader.is_canceled(), "half a line is none"
    os.write(writer, b'cel": true}\n')
    assert reader.is_canceled()
    send(writer, {"stream": 2}, {"cancel": True}, {"stream": 3})
    assert next(requests) == {"stream": 2}, "the cancel of the one before is over"
    assert reader.is_canceled()
    assert next(requests) == {"stream": 3}
    assert not reader.is_canceled()
    os.close(writer)
    assert reader.is_canceled(), "nobody reads it any more"
    assert list(requests) == []


def test_probabilities_add_up_to_the_log_likelihood(models: ModelVariants) -> None:
    answer = stream(models, {"stream": PROMPT, "variants": ["tuned"], "maxNewTokens": 12})[-1]
    request = {
        "probabilities": {"prompt": PROMPT, "ids": answer["ids"]},
        "variants": BOTH,
        "top": 3,
    }
    rated = list(rate_tokens(models, request))
    tuned = [token for token in rated if token["variant"] == "tuned"]
    assert "".join(token["text"] for token in tuned) == answer["text"]
    assert all(token["rank"] == 1 for token in tuned), "greedy: each was the likeliest"
    scored = {
        score["variant"]: score
        for score in score_continuations(
            models, {"score": [{"prompt": PROMPT, "text": answer["text"]}], "variants": BOTH}
        )
    }
    for name in BOTH:
        own = [token for token in rated if token["variant"] == name]
        total = math.fsum(math.log(token["probability"]) for token in own)
        assert total == pytest.approx(scored[name]["logLikelihood"], rel=1e-4)
        for token in own:
            best = [other["probability"] for other in token["top"]]
            assert best == sorted(best, reverse=True) and len(best) == 3
            if token["rank"] == 1:
                assert token["top"][0]["token"] == token["token"]


def test_no_answer_has_no_probabilities(models: ModelVariants) -> None:
    request = {"probabilities": {"prompt": PROMPT, "ids": []}, "variants": BOTH}
    assert list(rate_tokens(models, request)) == []
    assert models.tuned.context_length == tiny.CONTEXT


def test_files_are_not_needed(tmp_path: Path) -> None:
    """A descriptor that is a file is read like a pipe."""
    path = tmp_path / "requests"
    path.write_text('{"count": []}\n\n{"features": true}')
    descriptor = os.open(path, os.O_RDONLY)
    assert list(RequestLines(descriptor)) == [{"count": []}, {"features": True}]
    os.close(descriptor)
