"""An engine that answers by a script: what a tiny random model would never write."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from cloudft.backends.local.model_process import ModelProcess
from cloudft.endpoint.bedrock.inference_request import ModelRef
from cloudft.endpoint.bedrock.local_inference import LocalInference
from cloudft.inference import Answer, Prompt
from cloudft.serving.engine import (
    Engine,
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineModel,
    EngineRequest,
    EngineStats,
)

Script = Callable[[EngineRequest], Sequence[EngineEvent]]
ALL_FEATURES = frozenset({"tools", "calls", "results", "reasoning", "system"})


class ScriptedEngine(Engine):
    """Has one base model. `requests` and `canceled` are what it was called with."""

    def __init__(self, script: Script, features: frozenset[str] = ALL_FEATURES) -> None:
        self.script = script
        self.requests: list[EngineRequest] = []
        self.canceled: list[str] = []
        self.is_closed = False
        self._model = EngineModel("base", "job", "base", context=100, features=features)

    @property
    def models(self) -> Sequence[EngineModel]:
        return [self._model]

    def submit(self, request: EngineRequest, on_event: Callable[[EngineEvent], None]) -> str:
        self.requests.append(request)
        for event in self.script(request):
            on_event(event)
        return str(len(self.requests))

    def cancel(self, request_id: str) -> None:
        self.canceled.append(request_id)

    def count_tokens(self, model: str, prompt: Prompt) -> int:
        return 7

    def stats(self) -> EngineStats:
        return EngineStats()

    def close(self) -> None:
        self.is_closed = True


def end_of(text: str, finish_reason: str = "stop", **members: object) -> EngineEnd:
    """Return the end of an answer with that text."""
    answer = Answer(0, "base", text, 9, finish_reason, prompt_tokens=7)
    return EngineEnd(Answer(**{**vars(answer), **members}))


def spelled(text: str, finish_reason: str = "stop") -> list[EngineEvent]:
    """Return the events of an answer that comes in pieces of three characters."""
    pieces = [text[i : i + 3] for i in range(0, len(text), 3)]
    deltas = [EngineDelta(piece, tokens=n) for n, piece in enumerate(pieces, 1)]
    return [*deltas, end_of(text, finish_reason)]


class ScriptedLoader:
    """Loads one engine for every model."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine

    def group_of(self, model: ModelRef) -> str:
        return ""

    def open_engine(self, models: Sequence[ModelRef]) -> Engine:
        return self.engine

    def open_process(self, model: ModelRef) -> ModelProcess:
        raise AssertionError("no text is scored")

    def is_alive(self, engine: Engine) -> bool:
        return True


def scripted(*answers: Sequence[EngineEvent]) -> tuple[LocalInference, ScriptedEngine]:
    """Return inference by an engine that gives these answers in turn, and that engine."""
    left: Iterator[Sequence[EngineEvent]] = iter(answers)
    engine = ScriptedEngine(lambda request: next(left))
    return LocalInference(ScriptedLoader(engine)), engine
