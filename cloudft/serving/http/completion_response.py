"""Answers of `/v1/completions`, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cloudft.serving.engine import EngineDelta, EngineEnd, TokenLogprob
from cloudft.serving.http.completion_request import CompletionRequest
from cloudft.serving.http.logprobs import LegacyLogprobs
from cloudft.serving.http.objects import finish_reason, new_object, usage

Chunk = dict[str, Any]


class WholeCompletion:
    """Collects the answers to a request, and writes them as one object."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in request.requests]
        self.ends: dict[int, EngineEnd] = {}

    def add(self, index: int, event: EngineDelta | EngineEnd) -> None:
        """Add an event of a choice."""
        if isinstance(event, EngineEnd):
            self.ends[index] = event
        else:
            self._logprobs[index] += event.logprobs

    def to_json(self) -> Chunk:
        """Return the object, after the last end."""
        ends = [self.ends[index] for index in range(len(self._request.requests))]
        return {
            **new_object("text_completion", "cmpl", self._request.model),
            "choices": [self._choice(index, end) for index, end in enumerate(ends)],
            "usage": usage([end.answer for end in ends], self._request.prompts),
        }

    def _choice(self, index: int, end: EngineEnd) -> Chunk:
        echo = self._request.echoes[index]
        logprobs = LegacyLogprobs(len(echo)).add(self._logprobs[index])
        return {
            "index": index,
            "text": echo + end.answer.text,
            "logprobs": logprobs if self._request.with_logprobs else None,
            "finish_reason": finish_reason(end),
        }


class CompletionStream:
    """Writes the answers to a request as chunks."""

    def __init__(self, request: CompletionRequest) -> None:
        self._request = request
        self._object = new_object("text_completion", "cmpl", request.model)
        self._offsets = [LegacyLogprobs(len(echo)) for echo in request.echoes]
        self._echoes = list(request.echoes)
        self.ends: dict[int, EngineEnd] = {}
        if request.include_usage:
            self._object["usage"] = None

    def chunks(self, index: int, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        """Yield the chunk of an event of a choice, if it has something new."""
        echo, self._echoes[index] = self._echoes[index], ""
        if isinstance(event, EngineEnd):
            self.ends[index] = event
            yield self._chunk(index, echo, (), finish_reason(event))
        elif echo or event.text or event.logprobs:
            yield self._chunk(index, echo + event.text, event.logprobs, None)

    def _chunk(
        self, index: int, text: str, tokens: Sequence[TokenLogprob], reason: str | None
    ) -> Chunk:
        choice = {
            "index": index,
            "text": text,
            "logprobs": self._offsets[index].add(tokens) if tokens else None,
            "finish_reason": reason,
        }
        return {**self._object, "choices": [choice]}

    def last_chunks(self) -> Iterator[Chunk]:
        """Yield the chunk with the usage, if it was requested. It has no choices."""
        if self._request.include_usage:
            answers = [end.answer for _, end in sorted(self.ends.items())]
            counted = usage(answers, self._request.prompts)
            yield {**self._object, "choices": [], "usage": counted}
