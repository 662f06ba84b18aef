"""Requests to the engine that answers many at once, what it reports, and its interface.

An engine has one base model in memory and the adapters of several jobs. Requests come from any
thread, are answered in one batch, and end each on its own.
"""

from __future__ import annotations

import queue
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft.errors import CloudftError
from cloudft.inference import Answer, LocalGenerationConfig, Prompt


@dataclass(frozen=True)
class EngineModel:
    """A model that an engine answers with: the one of a job (`tuned`), or its base.

    `name` is what requests name it by, unique in an engine.
    """

    name: str
    job_id: str
    variant: str
    context: int = 0
    """Tokens of prompt and answer together."""
    parameters: int = 0
    features: frozenset[str] = frozenset()
    """What its chat template renders besides texts (`tools`, `system`, ...)."""


@dataclass(frozen=True)
class EngineRequest:
    """A prompt for one model, and how to answer it.

    `stop` are texts before which the answer ends. With `logprobs` each token comes with its
    logarithmic probability and those of so many likeliest ones (0 to 20). `json_schema` constrains
    the answer to JSON that keeps it; a schema that can't be kept whole is refused. With
    `score_prompt` the tokens of the prompt are scored, too, and `max_new_tokens` may be 0.
    """

    model: str
    prompt: Prompt
    decoding: LocalGenerationConfig = field(default_factory=LocalGenerationConfig)
    stop: Sequence[str] = ()
    logprobs: int | None = None
    json_schema: Mapping[str, Any] | None = None
    score_prompt: bool = False


@dataclass(frozen=True)
class TokenLogprob:
    """A token of an answer: its text and bytes, and ln p at temperature 1. `top`: likeliest ones.

    The texts of an answer's tokens, one after another, need not be whole characters each; their
    bytes are.
    """

    token_id: int
    text: str
    data: bytes
    logprob: float
    top: Sequence[TokenLogprob] = ()


@dataclass(frozen=True)
class ScoredPrompt:
    """The text of a prompt's tokens and of the first of them, and the others with their scores."""

    text: str
    first: str
    tokens: Sequence[TokenLogprob]


@dataclass(frozen=True)
class EngineDelta:
    """New text of an answer: whole characters that are never taken back.

    `prompt` is that of a request with `score_prompt`, in its first delta.
    """

    text: str
    reasoning: str = ""
    tokens: int = 0
    """Tokens of the answer so far."""
    logprobs: Sequence[TokenLogprob] = ()
    prompt: ScoredPrompt | None = None


STOP, LENGTH, STOP_SEQUENCE, CANCELED = "stop", "length", "stop_sequence", "canceled"


@dataclass(frozen=True)
class EngineEnd:
    """The end of an answer, whose `finish_reason` is one of the four above.

    `stop_sequence` is the text of `stop` that ended it; it is not in the answer.
    """

    answer: Answer
    stop_sequence: str | None = None
    token_ids: Sequence[int] = ()
    first_token_s: float = 0.0
    """Seconds from the request to its first token, waiting included."""


@dataclass(frozen=True)
class EngineFailure:
    """The end of a request that can't be answered. The engine goes on.

    `error` is a RequestRefused where the request itself is at fault.
    """

    error: CloudftError


EngineEvent = EngineDelta | EngineEnd | EngineFailure


@dataclass(frozen=True)
class EngineStats:
    """What an engine does now, and has done since it was started."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    generated_tokens: int = 0
    steps: int = 0
    cached_tokens: int = 0
    """Tokens whose keys and values are in memory now."""
    resident_bytes: int | None = None
    shared_tokens: int = 0
    """Tokens of prompts that began as another one, and were not computed."""


@dataclass(frozen=True)
class TokenizerInfo:
    """The special tokens of a model, and its chat template; None where it has none."""

    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    chat_template: str | None


class SupportsTokenizer(ABC):
    """An engine that shows its models' tokens. Its methods raise RequestRefused, EngineFailed."""

    @abstractmethod
    def tokenize(
        self, model: str, prompt: Prompt | str, *, add_special_tokens: bool = True
    ) -> Sequence[int]:
        """Return the tokens of a prompt as the model gets it, or of a text of any length.

        Without `add_special_tokens` a text gets no BOS.
        """

    @abstractmethod
    def detokenize(self, model: str, token_ids: Sequence[int]) -> str:
        """Return the text of tokens, with special ones."""

    @abstractmethod
    def tokenizer_info(self, model: str) -> TokenizerInfo:
        """Return what clients need to know to write prompts of their own."""


class Engine(ABC):
    """Answers requests as they come, in one batch. Every method may be called from any thread."""

    @property
    @abstractmethod
    def models(self) -> Sequence[EngineModel]:
        """Return the models that requests can name."""

    @property
    def is_alive(self) -> bool:
        """Return whether requests can be answered; False after the end of what runs the models."""
        return True

    @abstractmethod
    def submit(self, request: EngineRequest, on_event: Callable[[EngineEvent], None]) -> str:
        """Take a request, and return its id.

        `on_event` is called from the engine's thread, in order, and must not block; the last event
        is an EngineEnd or an EngineFailure. Raise EngineBusy where too many requests wait.
        """

    @abstractmethod
    def cancel(self, request_id: str) -> None:
        """End a request within one token; one that has ended is ignored."""

    @abstractmethod
    def count_tokens(self, model: str, prompt: Prompt) -> int:
        """Return the number of tokens of a prompt. Raise RequestRefused, EngineFailed."""

    @abstractmethod
    def stats(self) -> EngineStats:
        """Return what the engine does now."""

    @abstractmethod
    def close(self) -> None:
        """End all requests, and release the models."""


def stream_events(engine: Engine, request: EngineRequest) -> Iterator[EngineDelta | EngineEnd]:
    """Yield the events of one request; closing the iterator cancels it.

    Raise the error of a request that can't be answered.
    """
    events: queue.SimpleQueue[EngineEvent] = queue.SimpleQueue()
    request_id = engine.submit(request, events.put)
    try:
        while True:
            event = events.get()
            if isinstance(event, EngineFailure):
                raise event.error
            yield event
            if isinstance(event, EngineEnd):
                return
    finally:
        engine.cancel(request_id)
