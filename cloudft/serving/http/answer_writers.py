"""Write the answers to a request as OpenAI's objects: what both kinds of completions share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from cloudft.serving.engine import EngineDelta, EngineEnd, EngineModel, EngineRequest, TokenLogprob
from cloudft.serving.http.objects import new_object, usage

Chunk = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class AnswerRequest:
    """What is to be answered: one engine request for each prompt and choice.

    The choices of each of the `prompts` follow each other. `members` maps fields of EngineRequest
    to the members of the body that they come from, which errors name.
    """

    model: EngineModel
    requests: Sequence[EngineRequest]
    members: Mapping[str, str]
    with_logprobs: bool
    stream: bool
    include_usage: bool
    prompts: int = 1


class WholeAnswer(ABC):
    """Collects the answers to a request, and writes them as one object."""

    kind: ClassVar[str]
    id_prefix: ClassVar[str]

    def __init__(self, request: AnswerRequest) -> None:
        self._request = request
        self._logprobs: list[list[TokenLogprob]] = [[] for _ in request.requests]
        self._ends: dict[int, EngineEnd] = {}

    def add(self, index: int, event: EngineDelta | EngineEnd) -> None:
        """Add an event of a choice."""
        if isinstance(event, EngineEnd):
            self._ends[index] = event
        else:
            self._logprobs[index] += event.logprobs

    def to_json(self) -> Chunk:
        """Return the object, after the last end."""
        ends = [end for _, end in sorted(self._ends.items())]
        choices = zip(ends, self._logprobs, strict=True)
        return {
            **new_object(self.kind, self.id_prefix, self._request.model),
            "choices": [self._choice(index, *choice) for index, choice in enumerate(choices)],
            "usage": usage([end.answer for end in ends], self._request.prompts),
        }

    @abstractmethod
    def _choice(self, index: int, end: EngineEnd, logprobs: Sequence[TokenLogprob]) -> Chunk:
        """Return one choice."""


class AnswerStream(ABC):
    """Writes the answers to a request as chunks, of one choice each."""

    kind: ClassVar[str]
    id_prefix: ClassVar[str]

    def __init__(self, request: AnswerRequest) -> None:
        self._request = request
        self._object = new_object(self.kind, self.id_prefix, request.model)
        self._ends: dict[int, EngineEnd] = {}
        if request.include_usage:
            self._object["usage"] = None

    def chunks(self, index: int, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        """Yield the chunks of an event of a choice."""
        if isinstance(event, EngineEnd):
            self._ends[index] = event
        for choice in self._parts(index, event):
            yield {**self._object, "choices": [choice]}

    @abstractmethod
    def _parts(self, index: int, event: EngineDelta | EngineEnd) -> Iterable[Chunk]:
        """Yield what an event adds to a choice, each for one chunk."""

    def last_chunks(self) -> Iterator[Chunk]:
        """Yield the chunk with the usage, if it was requested. It has no choices."""
        if self._request.include_usage:
            answers = [end.answer for _, end in sorted(self._ends.items())]
            counted = usage(answers, self._request.prompts)
            yield {**self._object, "choices": [], "usage": counted}
