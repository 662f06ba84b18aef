"""Answers of `/v1/completions`, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.serving.engine import EngineDelta, EngineEnd, TokenLogprob
from cloudft.serving.http.answer_writers import AnswerStream, Chunk, WholeAnswer
from cloudft.serving.http.completion_request import CompletionRequest
from cloudft.serving.http.logprobs import LegacyLogprobs
from cloudft.serving.http.objects import finish_reason


class WholeCompletion(WholeAnswer):
    """The answers to a request, as one object."""

    kind, id_prefix = "text_completion", "cmpl"

    def __init__(self, request: CompletionRequest) -> None:
        super().__init__(request)
        self._echoes = request.echoes

    def _choice(self, index: int, end: EngineEnd, logprobs: Sequence[TokenLogprob]) -> Chunk:
        echo = self._echoes[index]
        written = LegacyLogprobs(len(echo)).add(logprobs)
        return {
            "index": index,
            "text": echo + end.answer.text,
            "logprobs": written if self._request.with_logprobs else None,
            "finish_reason": finish_reason(end),
        }


class CompletionStream(AnswerStream):
    """The answers to a request, as chunks."""

    kind, id_prefix = "text_completion", "cmpl"

    def __init__(self, request: CompletionRequest) -> None:
        super().__init__(request)
        self._offsets = [LegacyLogprobs(len(echo)) for echo in request.echoes]
        self._echoes = list(request.echoes)

    def _parts(self, index: int, event: EngineDelta | EngineEnd) -> Iterator[Chunk]:
        echo, self._echoes[index] = self._echoes[index], ""
        if isinstance(event, EngineEnd):
            yield self._part(index, echo, (), finish_reason(event))
        elif echo or event.text or event.logprobs:
            yield self._part(index, echo + event.text, event.logprobs, None)

    def _part(
        self, index: int, text: str, tokens: Sequence[TokenLogprob], reason: str | None
    ) -> Chunk:
        return {
            "index": index,
            "text": text,
            "logprobs": self._offsets[index].add(tokens) if tokens else None,
            "finish_reason": reason,
        }
