"""Who answers: a job's tuned model, its base, or a folder of weights, each in a warm process."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.errors import CloudftError
from cloudft.inference import Answer, GenerationConfig, Prompt

MAX_WARM_PROCESSES = 2
"""Processes that are kept; each holds a model."""
DEFAULT_MAX_TOKENS = 256
"""Of an answer whose length the caller does not limit."""


@dataclass(frozen=True)
class ModelRef:
    """The model that is meant: that of a job, or (without one) the open weights of `model`."""

    local_job_id: str | None
    model: str = ""
    variant: str = "tuned"


@dataclass(frozen=True)
class InferenceRequest:
    """A conversation, or raw text to go on with; and the limits, by Converse's names."""

    messages: tuple[Mapping[str, str], ...] = ()
    text: str | None = None
    inference_config: Mapping[str, Any] | None = None

    @property
    def prompt(self) -> Prompt:
        """What the model is asked."""
        return Prompt(text=self.text) if self.text is not None else Prompt(self.messages)

    @property
    def generation_config(self) -> GenerationConfig:
        """How it answers: greedily unless a temperature is given."""
        limits = self.inference_config or {}
        return GenerationConfig(
            max_new_tokens=int(limits.get("maxTokens") or DEFAULT_MAX_TOKENS),
            temperature=float(limits.get("temperature") or 0.0),
            top_p=float(limits.get("topP") or 1.0),
        )


@dataclass(frozen=True)
class InferenceResult:
    """What the model said. `stop` is Converse's `stopReason`."""

    text: str
    stop_reason: str
    input_tokens: int
    output_tokens: int


class LocalInference:
    """Asks local models. `open_child` starts the process of a `Who`."""

    def __init__(self, open_process: Callable[[ModelRef], Any]) -> None:
        self._open = open_process
        self._lock = threading.Lock()
        self._warm: OrderedDict[tuple[str | None, str], tuple[threading.Lock, list[Any]]] = (
            OrderedDict()
        )

    def generate(self, who: ModelRef, question: InferenceRequest) -> InferenceResult:
        """One answer. Raises WireError."""
        with self._model_process(who) as child:
            [tokens] = child.count_tokens([question.prompt])
            [answer] = child.generate([question.prompt], [who.variant], question.generation_config)
        return _to_result(
            answer, tokens, (question.inference_config or {}).get("stopSequences") or ()
        )

    def generate_batch(
        self, who: ModelRef, questions: Sequence[InferenceRequest]
    ) -> Iterator[InferenceResult]:
        """Answers in order, asked with the first question's limits. Raises WireError."""
        prompts = [question.prompt for question in questions]
        with self._model_process(who) as child:
            counts = child.count_tokens(prompts)
            answers = list(child.generate(prompts, [who.variant], questions[0].generation_config))
        for answer in sorted(answers, key=lambda answer: answer.index):
            stops = (questions[answer.index].limits or {}).get("stopSequences") or ()
            yield _to_result(answer, counts[answer.index], stops)

    def count_tokens(self, who: ModelRef, question: InferenceRequest) -> int:
        """Tokens that the model would read. Raises WireError."""
        with self._model_process(who) as child:
            [tokens] = child.count_tokens([question.prompt])
        return int(tokens)

    def close(self) -> None:
        """End every process."""
        with self._lock:
            for _, kept in self._warm.values():
                for child in kept:
                    child.close()
            self._warm.clear()

    @contextmanager
    def _model_process(self, who: ModelRef) -> Iterator[Any]:
        """The process of that model, by itself for as long as this lasts."""
        key = (who.local_job_id, who.model)
        with self._lock:
            lock, kept = self._warm.setdefault(key, (threading.Lock(), []))
            self._warm.move_to_end(key)
        with lock:
            try:
                if kept and not kept[0].is_alive:
                    kept.pop().close()
                if not kept:
                    kept.append(self._open(who))
                yield kept[0]
            except CloudftError as error:
                while kept:
                    kept.pop().close()
                raise ServiceError("ModelErrorException", f"{error.message} {error.fix}") from error
        self._close_least_recent()

    def _close_least_recent(self) -> None:
        """End the processes that were used longest ago."""
        with self._lock:
            for key in list(self._warm)[:-MAX_WARM_PROCESSES]:
                lock, kept = self._warm[key]
                if lock.acquire(blocking=False):
                    try:
                        del self._warm[key]
                        for child in kept:
                            child.close()
                    finally:
                        lock.release()


def _to_result(answer: Answer, tokens_in: int, stops: Sequence[str]) -> InferenceResult:
    text, stop = answer.text, "max_tokens" if answer.finish_reason == "length" else "end_turn"
    ends = [text.index(word) for word in stops if word in text]
    if ends:
        text, stop = text[: min(ends)], "stop_sequence"
    return InferenceResult(text, stop, tokens_in, answer.tokens)
