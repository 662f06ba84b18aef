"""Inference of the endpoint's models by local processes, which are kept warm."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.errors import CloudftError
from cloudft.inference import Answer, GenerationConfig, Message, Prompt

if TYPE_CHECKING:
    from cloudft.backends.local.model_process import ModelProcess
    from cloudft.endpoint.bedrock.shapes import InferenceConfig

MAX_WARM_PROCESSES = 2
"""How many processes are kept. Each holds a model in memory."""
DEFAULT_MAX_TOKENS = 256
"""Length of an answer that the caller does not limit."""


@dataclass(frozen=True)
class ModelRef:
    """A model to ask: that of a local job, or without one the open weights of `model`.

    `variant` is `tuned` or `base`.
    """

    local_job_id: str | None
    model: str = ""
    variant: str = "tuned"


@dataclass(frozen=True)
class InferenceRequest:
    """A conversation, or raw text to continue; and the limits, by the names of Converse."""

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tool_config: Mapping[str, Any] | None = None
    inference_config: InferenceConfig | None = None

    @property
    def prompt(self) -> Prompt:
        """Return the prompt for the model."""
        return Prompt(() if self.text is not None else self.messages, self.text, self.tool_config)

    @property
    def generation_config(self) -> GenerationConfig:
        """Return how to decode: greedily unless a temperature is given."""
        config = self.inference_config or {}
        return GenerationConfig(
            max_new_tokens=int(config.get("maxTokens") or DEFAULT_MAX_TOKENS),
            temperature=float(config.get("temperature") or 0.0),
            top_p=float(config.get("topP") or 1.0),
        )

    @property
    def stop_sequences(self) -> Sequence[str]:
        """Return the texts that end an answer."""
        return (self.inference_config or {}).get("stopSequences") or ()


@dataclass(frozen=True)
class InferenceResult:
    """A model's answer. `stop_reason` is Converse's `stopReason`; tokens are the stand-in's."""

    text: str
    stop_reason: str
    input_tokens: int
    output_tokens: int


class LocalInference:
    """Generates with local models. `open_process` starts the process of a model."""

    def __init__(self, open_process: Callable[[ModelRef], ModelProcess]) -> None:
        self._open = open_process
        self._lock = threading.Lock()
        # By model: a lock for its process, and the process, in a list that is empty until it
        # starts. In order of use, the most recent last.
        self._warm: OrderedDict[
            tuple[str | None, str], tuple[threading.Lock, list[ModelProcess]]
        ] = OrderedDict()

    def generate(self, model: ModelRef, request: InferenceRequest) -> InferenceResult:
        """Generate one answer. Raises ServiceError."""
        with self._model_process(model) as process:
            [tokens] = process.count_tokens([request.prompt])
            [answer] = process.generate(
                [request.prompt], [model.variant], request.generation_config
            )
        return _to_result(answer, tokens, request.stop_sequences)

    def generate_batch(
        self, model: ModelRef, requests: Sequence[InferenceRequest]
    ) -> Iterator[InferenceResult]:
        """Yield an answer for each request, in order. Raises ServiceError.

        The first request's generation settings apply to all.
        """
        prompts = [request.prompt for request in requests]
        with self._model_process(model) as process:
            counts = process.count_tokens(prompts)
            answers = list(
                process.generate(prompts, [model.variant], requests[0].generation_config)
            )
        # A process may finish its answers in another order; their index names the request.
        for answer in sorted(answers, key=lambda answer: answer.index):
            stops = requests[answer.index].stop_sequences
            yield _to_result(answer, counts[answer.index], stops)

    def count_tokens(self, model: ModelRef, request: InferenceRequest) -> int:
        """Return the number of tokens that the model would read. Raises ServiceError."""
        with self._model_process(model) as process:
            [tokens] = process.count_tokens([request.prompt])
        return int(tokens)

    def close(self) -> None:
        """End every process."""
        with self._lock:
            for _, kept in self._warm.values():
                for process in kept:
                    process.close()
            self._warm.clear()

    @contextmanager
    def _model_process(self, model: ModelRef) -> Iterator[ModelProcess]:
        """Yield the process of a model, exclusively: it reads one request at a time."""
        # A job's base and tuned model share a process, so the variant is not part of the key.
        key = (model.local_job_id, model.model)
        with self._lock:
            lock, kept = self._warm.setdefault(key, (threading.Lock(), []))
            self._warm.move_to_end(key)
        with lock:
            try:
                if kept and not kept[0].is_alive:
                    kept.pop().close()
                if not kept:
                    kept.append(self._open(model))
                yield kept[0]
            except CloudftError as error:
                # Its pipe may hold half an answer: the next request gets a new process.
                while kept:
                    kept.pop().close()
                raise ServiceError("ModelErrorException", f"{error.message} {error.fix}") from error
        self._close_least_recent()

    def _close_least_recent(self) -> None:
        """End the processes that were used least recently, except those that are busy."""
        with self._lock:
            for key in list(self._warm)[:-MAX_WARM_PROCESSES]:
                lock, kept = self._warm[key]
                if lock.acquire(blocking=False):
                    try:
                        del self._warm[key]
                        for process in kept:
                            process.close()
                    finally:
                        lock.release()


def _to_result(answer: Answer, tokens: int, stops: Sequence[str]) -> InferenceResult:
    """Return the result of an answer, cut before the first stop sequence in it."""
    text, reason = answer.text, "max_tokens" if answer.finish_reason == "length" else "end_turn"
    ends = [text.index(stop) for stop in stops if stop in text]
    if ends:
        text, reason = text[: min(ends)], "stop_sequence"
    return InferenceResult(text, reason, tokens, answer.tokens)
