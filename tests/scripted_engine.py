"""An engine whose answers are written in the test, for what no tiny model says on demand."""

from __future__ import annotations

import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft.errors import CloudftError, EngineBusy
from cloudft.inference import Answer, Prompt
from cloudft.serving.engine import (
    CANCELED,
    Engine,
    EngineDelta,
    EngineEnd,
    EngineEvent,
    EngineFailure,
    EngineModel,
    EngineRequest,
    EngineStats,
    TokenLogprob,
)

FEATURES = frozenset({"tools", "calls", "results", "reasoning", "text_with_calls"})
MODELS = (
    EngineModel("router", "router-abc123", "tuned", 4096, 1000, FEATURES),
    EngineModel("base", "", "base", 4096, 1000, frozenset()),
)


@dataclass(frozen=True)
class Script:
    """An answer: its parts as they come (text, or a pair of text and reasoning), and its end.

    `tail` is text that comes with the end alone, as the JSON of tool calls does.
    """

    parts: Sequence[str | tuple[str, str]] = ("Hello", " there", ".")
    tail: str = ""
    calls: Sequence[Mapping[str, Any]] = ()
    finish_reason: str = "stop"
    error: CloudftError | None = None
    error_after: int = 0
    delay: float = 0.0
    logprobs: bool = False


@dataclass
class ScriptedEngine(Engine):
    """Answers each request in a thread by what `write` returns for it."""

    write: Callable[[EngineRequest], Script] = lambda request: Script()
    max_open: int = 1000
    known: Sequence[EngineModel] = MODELS
    requests: list[EngineRequest] = field(default_factory=list)
    canceled: list[str] = field(default_factory=list)
    tokens_made: int = 0

    failure: CloudftError | None = None

    @property
    def is_alive(self) -> bool:
        return self.failure is None

    def __post_init__(self) -> None:
        self._ids = itertools.count()
        self._open: dict[str, threading.Event] = {}
        self._lock = threading.Lock()

    @property
    def models(self) -> Sequence[EngineModel]:
        return self.known

    def submit(self, request: EngineRequest, on_event: Callable[[EngineEvent], None]) -> str:
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if len(self._open) >= self.max_open:
                raise EngineBusy("too many requests wait.", fix="try again later.")
            request_id = str(next(self._ids))
            stop = self._open[request_id] = threading.Event()
            self.requests.append(request)
        script = self.write(request)
        arguments = (request_id, request, script, stop, on_event)
        threading.Thread(target=self._answer, args=arguments, daemon=True).start()
        return request_id

    def _answer(
        self,
        request_id: str,
        request: EngineRequest,
        script: Script,
        stop: threading.Event,
        on_event: Callable[[EngineEvent], None],
    ) -> None:
        text = reasoning = ""
        count = 0
        started = time.perf_counter()
        for number, part in enumerate(script.parts):
            if script.error and number == script.error_after:
                break
            if stop.wait(script.delay):
                break
            new, thought = (part, "") if isinstance(part, str) else part
            text, reasoning, count = text + new, reasoning + thought, number + 1
            self.tokens_made += 1
            logprobs = _logprobs(new, request) if request.logprobs is not None else ()
            on_event(EngineDelta(new, thought, count, logprobs))
        with self._lock:
            self._open.pop(request_id, None)
        if script.error:
            on_event(EngineFailure(script.error))
            return
        if script.tail:
            on_event(EngineDelta(script.tail, "", count))
        reason = CANCELED if stop.is_set() else script.finish_reason
        answer = Answer(
            0, "tuned", text + script.tail, count, reason, reasoning, script.calls, prompt_tokens=5
        )
        first = (time.perf_counter() - started) / max(count, 1)
        on_event(EngineEnd(answer, first_token_s=first))

    def cancel(self, request_id: str) -> None:
        with self._lock:
            stop = self._open.get(request_id)
        if stop is not None:
            self.canceled.append(request_id)
            stop.set()

    def count_tokens(self, model: str, prompt: Prompt) -> int:
        return 5

    def stats(self) -> EngineStats:
        if self.failure is not None:
            raise self.failure
        return EngineStats(
            running=len(self._open), generated_tokens=self.tokens_made, resident_bytes=1 << 20
        )

    def close(self) -> None:
        for request_id in list(self._open):
            self.cancel(request_id)


def _logprobs(text: str, request: EngineRequest) -> list[TokenLogprob]:
    top = [
        TokenLogprob(number, f"t{number}", f"t{number}".encode(), -1.0 - number)
        for number in range(request.logprobs or 0)
    ]
    return [TokenLogprob(1, text, text.encode(), -0.5, top)]


@contextlib.contextmanager
def serving(engine: Engine, *, api_key: str | None = None) -> Iterator[str]:
    """Serve an engine in a thread of this process; yield the address."""
    import uvicorn

    from cloudft.serving.http.access import AccessRules
    from cloudft.serving.http.app import build_app
    from cloudft.web.listening_socket import LOOPBACK, bind_socket, listen

    with bind_socket(LOOPBACK, 0, "the test") as bound:
        listen(bound, "the test")
        app = build_app(engine, AccessRules(api_key))
        config = uvicorn.Config(app, lifespan="off", log_level="warning", access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
        thread.start()
        try:
            yield f"http://{LOOPBACK}:{bound.getsockname()[1]}"
        finally:
            server.should_exit = server.force_exit = True
            thread.join(30)
            engine.close()
