"""An answer, whole or in its parts while it is made, before any API's form is given to it."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace

from cloudft.data.formats.record import ToolCall
from cloudft.serving.engine import TokenLogprob


@dataclass(frozen=True)
class InferenceResult:
    """A model's answer. `stop_reason` is Converse's `stopReason`; tokens are the stand-in's.

    `text` is without the reasoning before it and without tool calls. `stop_sequence` is the one
    that ended it. `latency_ms` is the time that it took, `first_ms` the time up to its first part.
    `model_id` names the model in the answer. `logprobs` are those of all its tokens, if requested.
    """

    text: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    stop_sequence: str | None = None
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    latency_ms: int = 0
    first_ms: int = 0
    model_id: str = ""
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class TextPart:
    """The next piece of an answer's text.

    `logprobs` are those of the tokens up to its end, if requested, from the end of the last piece.
    """

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True)
class ReasoningPart:
    """The next piece of the reasoning before an answer."""

    text: str


@dataclass(frozen=True)
class CallStart:
    """The beginning of a tool call, whose input follows in pieces."""

    call_id: str
    name: str


@dataclass(frozen=True)
class CallInput:
    """The next piece of the JSON text of a tool call's input."""

    text: str


AnswerPart = TextPart | ReasoningPart | CallStart | CallInput
Answering = Generator[AnswerPart, None, InferenceResult]
"""The making of an answer: it yields the parts, and returns the whole. Closing it cancels."""


class AnswerStream:
    """One answer in the making: iterating yields its parts; then `result` is the whole."""

    def __init__(
        self, parts: Answering, count_input_tokens: Callable[[], int], model_id: str = ""
    ) -> None:
        self.model_id = model_id
        self._parts = parts
        self._count_input_tokens = count_input_tokens
        self._ahead: list[AnswerPart] = []
        self._result: InferenceResult | None = None
        self._started = time.monotonic()
        self._first_ms: int | None = None

    def wait_for_first(self) -> None:
        """Wait until there is a part. Errors up to then are raised here, not in the iteration."""
        try:
            self._ahead.append(next(self._parts))
        except StopIteration as end:
            self._end(end.value)
        self._first_ms = self._elapsed_ms()

    def __iter__(self) -> Iterator[AnswerPart]:
        """Yield the parts. Raises ServiceError."""
        while self._ahead:
            yield self._ahead.pop(0)
        while self._result is None:
            try:
                part = next(self._parts)
            except StopIteration as end:
                self._end(end.value)
                return
            if self._first_ms is None:
                self._first_ms = self._elapsed_ms()
            yield part

    def _end(self, result: InferenceResult) -> None:
        latency = self._elapsed_ms()
        first = latency if self._first_ms is None else self._first_ms
        self._result = replace(
            result, latency_ms=latency, first_ms=first, model_id=self.model_id or result.model_id
        )

    def _elapsed_ms(self) -> int:
        # No answer takes 0 ms: AWS's metrics are positive numbers.
        return max(1, round((time.monotonic() - self._started) * 1000))

    @property
    def has_ended(self) -> bool:
        """Return whether every part was read."""
        return self._result is not None and not self._ahead

    @property
    def result(self) -> InferenceResult:
        """Return the whole answer, after the last part."""
        assert self._result is not None, "the answer has not ended"
        return self._result

    @property
    def input_tokens(self) -> int:
        """Return the number of the prompt's tokens, from the first part on."""
        return self._count_input_tokens() if self._result is None else self._result.input_tokens

    def close(self) -> None:
        """Cancel what is not made yet. Not while another thread reads the parts."""
        self._parts.close()


def whole_answer(stream: AnswerStream) -> InferenceResult:
    """Return the whole answer of a stream, whose parts nobody reads. Raises ServiceError."""
    for _ in stream:
        pass
    return stream.result
