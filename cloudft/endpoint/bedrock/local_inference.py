"""Inference of the endpoint's models by local engines and processes, which are kept warm."""

from __future__ import annotations

import functools
import threading
from collections.abc import Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from cloudft.endpoint.bedrock.answer_stream import (
    Answering,
    AnswerStream,
    InferenceResult,
    whole_answer,
)
from cloudft.endpoint.bedrock.engine_answers import EngineUse, answer_by_engine, to_service_error
from cloudft.endpoint.bedrock.inference_request import (
    InferenceRequest,
    ModelRef,
    require_abilities,
)
from cloudft.endpoint.bedrock.warm_pool import WarmPool
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.errors import CloudftError, RequestRefused
from cloudft.inference import ScoringRequest
from cloudft.serving.engine import Engine, EngineModel

if TYPE_CHECKING:
    from cloudft.backends.local.model_process import ModelProcess

MAX_WARM_ENGINES = 2
"""How many engines are kept. Each holds a model in memory."""
BATCH_IN_FLIGHT = 16
"""Requests of a batch that an engine has at a time: it refuses more than it has room for."""
MAX_SHARING = 8
"""How many jobs share the engine of their base."""


class ModelLoader(Protocol):
    """Loads local models. Every method raises CloudftError."""

    def group_of(self, model: ModelRef) -> Hashable:
        """Return what the models have in common that one engine may have."""

    def open_engine(self, models: Sequence[ModelRef]) -> Engine:
        """Load the engine of models of one group, in both variants where they have them."""

    def open_process(self, model: ModelRef) -> ModelProcess:
        """Load the process of a model, which scores texts."""

    def is_alive(self, engine: Engine) -> bool:
        """Return whether an engine still answers."""


class LocalInference:
    """Generates with local models, for any number of threads at once."""

    def __init__(self, loader: ModelLoader) -> None:
        self._loader = loader
        self.engines: WarmPool[Hashable, ModelRef, Engine] = WarmPool(
            loader.open_engine, MAX_WARM_ENGINES, loader.is_alive, MAX_SHARING
        )
        self._processes: WarmPool[ModelRef, ModelRef, ModelProcess] = WarmPool(
            lambda models: loader.open_process(models[0]), 1, lambda process: process.is_alive
        )
        self._scoring = threading.Lock()

    def generate(self, model: ModelRef, request: InferenceRequest) -> InferenceResult:
        """Generate one answer. Raises ServiceError."""
        return whole_answer(self.stream(model, request))

    def stream(self, model: ModelRef, request: InferenceRequest, name: str = "") -> AnswerStream:
        """Return an answer in the making; nothing is loaded before its first part is read.

        `name` is what the answer calls the model.
        """
        count = 0

        def count_input_tokens() -> int:
            nonlocal count
            count = count or self.count_tokens(model, request)
            return count

        return AnswerStream(self._answer(model, request), count_input_tokens, name)

    def _answer(self, model: ModelRef, request: InferenceRequest) -> Answering:
        with self._engine(model) as use:
            require_abilities(request, use.model.features)
            return (yield from answer_by_engine(use, request))

    def generate_batch(
        self, model: ModelRef, requests: Sequence[InferenceRequest]
    ) -> Iterator[InferenceResult]:
        """Yield an answer for each request, in order. Raises ServiceError."""
        # A thread for each, since an answer is read while it is made.
        with ThreadPoolExecutor(BATCH_IN_FLIGHT) as threads:
            yield from threads.map(functools.partial(self.generate, model), requests)

    def score_options(
        self, model: ModelRef, request: InferenceRequest, options: Sequence[str]
    ) -> list[float]:
        """Return the mean log-likelihood per token of each option as the answer.

        Raises ServiceError.
        """
        scored = [ScoringRequest(request.prompt, option) for option in options]
        scores = [0.0] * len(options)
        with self._process(model) as process:
            for found in process.loglikelihood(scored, [model.variant]):
                scores[found.index] = found.log_likelihood / max(1, found.tokens)
        return scores

    def count_tokens(self, model: ModelRef, request: InferenceRequest) -> int:
        """Return the number of tokens that the model would read. Raises ServiceError."""
        with self._engine(model) as use:
            require_abilities(request, use.model.features)
            try:
                return use.engine.count_tokens(use.model.name, request.prompt)
            except RequestRefused as error:
                raise to_service_error(error) from error

    def warm_up(self, model: ModelRef) -> None:
        """Load the model's engine, so that the first answer does not wait for it.

        Raises ServiceError.
        """
        with self._engine(model):
            pass

    def close(self) -> None:
        """End every engine and process."""
        self.engines.close()
        self._processes.close()

    @contextmanager
    def _engine(self, model: ModelRef) -> Iterator[EngineUse]:
        """Yield the engine of a model, which others may use meanwhile. Raises ServiceError."""
        with _as_model_error():
            group = self._loader.group_of(model)
            with self.engines.use(group, _without_variant(model)) as engine:
                yield EngineUse(engine, _find(engine.models, model))

    @contextmanager
    def _process(self, model: ModelRef) -> Iterator[ModelProcess]:
        """Yield the process of a model, exclusively: it reads one request at a time."""
        key = _without_variant(model)
        with _as_model_error(), self._scoring, self._processes.use(key, key) as process:
            try:
                yield process
            except CloudftError:
                # Its pipe may hold half an answer: the next request gets a new process.
                self._processes.discard(process)
                raise


def _without_variant(model: ModelRef) -> ModelRef:
    """Return what names a job's base and tuned model alike: they are loaded together."""
    return replace(model, variant="")


@contextmanager
def _as_model_error() -> Iterator[None]:
    try:
        yield
    except CloudftError as error:
        raise ServiceError("ModelErrorException", f"{error.message} {error.fix}") from error


def _find(models: Sequence[EngineModel], wanted: ModelRef) -> EngineModel:
    """Return an engine's model: the tuned one of a job, or the base that all of them share."""
    return next(
        model
        for model in models
        if model.variant == wanted.variant
        and (wanted.variant == "base" or model.job_id == wanted.local_job_id)
    )
