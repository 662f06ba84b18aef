"""Inference of the endpoint's models by local processes, which are kept warm."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from cloudft.data.formats.record import ToolCall, join_answer
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import new_id
from cloudft.errors import CloudftError
from cloudft.inference import (
    Answer,
    GenerationConfig,
    LocalGenerationConfig,
    Message,
    Prompt,
    ScoringRequest,
)

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
    """A conversation, or raw text to continue; and the limits, by the names of Converse.

    `top_k` limits sampling to the likeliest tokens; 0 is no limit.
    """

    messages: tuple[Message, ...] = ()
    text: str | None = None
    tool_config: Mapping[str, Any] | None = None
    inference_config: InferenceConfig | None = None
    top_k: int = 0

    @property
    def prompt(self) -> Prompt:
        """Return the prompt for the model."""
        return Prompt(() if self.text is not None else self.messages, self.text, self.tool_config)

    @property
    def generation_config(self) -> GenerationConfig:
        """Return how to decode: greedily unless a temperature is given."""
        config = self.inference_config or {}
        return LocalGenerationConfig(
            max_new_tokens=int(config.get("maxTokens") or DEFAULT_MAX_TOKENS),
            temperature=float(config.get("temperature") or 0.0),
            top_p=float(config.get("topP") or 1.0),
            top_k=self.top_k,
        )

    @property
    def stop_sequences(self) -> Sequence[str]:
        """Return the texts that end an answer."""
        return (self.inference_config or {}).get("stopSequences") or ()


@dataclass(frozen=True)
class InferenceResult:
    """A model's answer. `stop_reason` is Converse's `stopReason`; tokens are the stand-in's.

    `text` is without the reasoning before it and without tool calls. `stop_sequence` is the one
    that ended it. `latency_ms` is the time that it took. `model_id` names the model
    in the answer.
    """

    text: str
    stop_reason: str
    input_tokens: int
    output_tokens: int
    stop_sequence: str | None = None
    reasoning: str = ""
    calls: tuple[ToolCall, ...] = ()
    latency_ms: int = 0
    model_id: str = ""


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
        started = time.monotonic()
        with self._model_process(model) as process:
            _require_abilities(process, request)
            [answer] = process.generate(
                [request.prompt], [model.variant], request.generation_config
            )
        result = _to_result(answer, request.stop_sequences)
        return replace(result, latency_ms=round((time.monotonic() - started) * 1000))

    def generate_batch(
        self, model: ModelRef, requests: Sequence[InferenceRequest]
    ) -> Iterator[InferenceResult]:
        """Yield an answer for each request, in order. Raises ServiceError.

        The first request's generation settings apply to all.
        """
        prompts = [request.prompt for request in requests]
        with self._model_process(model) as process:
            for request in requests:
                _require_abilities(process, request)
            answers = list(
                process.generate(prompts, [model.variant], requests[0].generation_config)
            )
        # A process may finish its answers in another order; their index names the request.
        for answer in sorted(answers, key=lambda answer: answer.index):
            stops = requests[answer.index].stop_sequences
            yield _to_result(answer, stops)

    def score_options(
        self, model: ModelRef, request: InferenceRequest, options: Sequence[str]
    ) -> list[float]:
        """Return the mean log-likelihood per token of each option as the answer.

        Raises ServiceError.
        """
        scored = [ScoringRequest(request.prompt, option) for option in options]
        scores = [0.0] * len(options)
        with self._model_process(model) as process:
            for found in process.loglikelihood(scored, [model.variant]):
                scores[found.index] = found.log_likelihood / max(1, found.tokens)
        return scores

    def count_tokens(self, model: ModelRef, request: InferenceRequest) -> int:
        """Return the number of tokens that the model would read. Raises ServiceError."""
        with self._model_process(model) as process:
            _require_abilities(process, request)
            [tokens] = process.count_tokens([request.prompt])
        return int(tokens)

    def warm_up(self, model: ModelRef) -> None:
        """Start the model's process, so that the first answer does not wait for it.

        Raises ServiceError.
        """
        with self._model_process(model):
            pass

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


def _require_abilities(process: ModelProcess, request: InferenceRequest) -> None:
    """Raise ServiceError, in Bedrock's words, for what the model's chat template leaves out."""
    blocks = [
        b for m in request.messages if not isinstance(m["content"], str) for b in m["content"]
    ]
    kinds = {kind for block in blocks for kind in block}
    needs_tools = request.tool_config is not None or bool(kinds & {"toolUse", "toolResult"})
    if not needs_tools and "reasoningContent" not in kinds:
        return
    features = process.template_features()
    if needs_tools and not {"tools", "calls", "results"} <= features:
        # The words are Bedrock's for DeepSeek-R1 (langchain-ai/langchain-aws, issue 447).
        raise ServiceError("ValidationException", "This model doesn't support tool use.")
    if "reasoningContent" in kinds and "reasoning" not in features:
        raise unsupported_block("reasoningContent")


def unsupported_block(kind: str) -> ServiceError:
    """Return the error for a content block that a model does not take, in Bedrock's words.

    Source of the words: boto/boto3, issue 4581.
    """
    message = f"This model doesn't support the {kind} content block that you provided."
    return ServiceError("ValidationException", f"{message} Update the content block and try again.")


def _to_result(answer: Answer, stops: Sequence[str]) -> InferenceResult:
    """Return the result of an answer, cut before the first stop sequence in it."""
    calls = tuple(
        ToolCall(f"tooluse_{new_id()}{new_id()}"[:30], call["name"], call["arguments"])
        for call in answer.calls
    )
    # The text of an answer has its calls at its end, as people read them.
    text = answer.text.removesuffix(join_answer("", calls)).rstrip() if calls else answer.text
    reason = "max_tokens" if answer.finish_reason == "length" else "end_turn"
    reason = "tool_use" if calls else reason
    ends = [(text.index(stop), stop) for stop in stops if stop in text]
    stopped_by: str | None = None
    if ends:
        end, stopped_by = min(ends)
        text, reason, calls = text[:end], "stop_sequence", ()
    return InferenceResult(
        text,
        reason,
        answer.prompt_tokens,
        answer.tokens,
        stop_sequence=stopped_by,
        reasoning=answer.reasoning,
        calls=calls,
    )
