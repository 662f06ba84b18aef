"""Answers of `/v1/completions`, whole or as chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cloudft.serving.engine import EngineDelta, EngineEnd, ScoredPrompt, TokenLogprob
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
        self._prompts: dict[int, ScoredPrompt] = {}

    def add(self, index: int, event: EngineDelta | EngineEnd) -> None:
        """Add an event of a choice."""
        if isinstance(event, EngineDelta) and event.prompt is not None:
            self._prompts[index] = event.prompt
        super().add(index, event)

    def _choice(self, index: int, end: EngineEnd, logprobs: Sequence[TokenLogprob]) -> Chunk:
        prompt = self._prompts.get(index)
        echo = self._echoes[index] or (prompt.text if prompt else "")
        form = LegacyLogprobs(len(echo))
        written = form.add_prompt(prompt, echo) if prompt else form.add(())
        for name, values in form.add(logprobs).items():
            written[name] = [*written[name], *values]
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
            yield self._part(index, echo, None, finish_reason(event))
            return
        form = self._offsets[index]
        if event.prompt is not None:
            echo = echo or event.prompt.text
            yield self._part(index, echo, form.add_prompt(event.prompt, echo), None)
            echo = ""
        if echo or event.text or event.logprobs:
            written = form.add(event.logprobs) if event.logprobs else None
            yield self._part(index, echo + event.text, written, None)

    def _part(self, index: int, text: str, logprobs: Chunk | None, reason: str | None) -> Chunk:
        return {
            "index": index,
            "text": text,
            "logprobs": logprobs,
            "finish_reason": reason,
        }
