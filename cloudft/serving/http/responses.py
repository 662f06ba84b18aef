"""Responses whose answers are still being generated: whole JSON, or server-sent events.

A client that goes away cancels its request within one token, whichever kind it waits for.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import anyio
import orjson
from starlette.responses import Response

from cloudft.serving.engine import EngineDelta, EngineEnd, EngineFailure
from cloudft.serving.http.answer_writers import AnswerStream, WholeAnswer
from cloudft.serving.http.answers import AnswerRun, ChoiceEvent
from cloudft.serving.http.errors import ApiError
from cloudft.serving.http.exchange import Exchange, exchange_of
from cloudft.serving.http.metrics import ServerMetrics

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

DONE = b"data: [DONE]\n\n"
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    # A proxy (nginx) would else hold the tokens back until its buffer is full.
    (b"x-accel-buffering", b"no"),
]


class _AnswerResponse(Response, ABC):
    """A response that ends early when its client goes away. `run` has been started."""

    def __init__(self, run: AnswerRun, metrics: ServerMetrics) -> None:
        super().__init__()
        self.run, self.metrics = run, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Write the response. Raise ApiError before it begins."""
        exchange = exchange_of(scope)
        exchange.was_canceled = True  # unless the response is written to its end
        errors: list[Exception] = []
        try:
            async with anyio.create_task_group() as group:
                group.start_soon(_cancel_when_left, receive, group.cancel_scope)
                try:
                    await self.write(exchange, scope, receive, send)
                except Exception as error:  # the task group would wrap it
                    errors.append(error)
                exchange.was_canceled = False
                group.cancel_scope.cancel()
        finally:
            self.run.cancel()
        if errors:
            raise errors[0]

    @abstractmethod
    async def write(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Write what the client gets."""

    async def events(
        self, exchange: Exchange
    ) -> AsyncGenerator[list[tuple[int, EngineDelta | EngineEnd]], None]:
        """Yield the events by choice, and measure the answers that end. Raise ApiError."""
        async with aclosing(self.run.events()) as batches:
            async for batch in batches:
                yield [self._measured(exchange, one) for one in batch]

    def _measured(
        self, exchange: Exchange, one: ChoiceEvent
    ) -> tuple[int, EngineDelta | EngineEnd]:
        assert not isinstance(one.event, EngineFailure)
        if isinstance(one.event, EngineEnd):
            seconds = time.perf_counter() - exchange.started
            self.metrics.observe_answer(exchange, one.event, seconds)
        return one.index, one.event


async def _cancel_when_left(
    receive: Callable[[], Awaitable[Any]], scope: anyio.CancelScope
) -> None:
    """Cancel a scope when the client goes away."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()


class WholeResponse(_AnswerResponse):
    """Sends one JSON object when all answers have ended."""

    def __init__(self, run: AnswerRun, metrics: ServerMetrics, answer: WholeAnswer) -> None:
        super().__init__(run, metrics)
        self.answer = answer

    async def write(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Collect the answers, and send them."""
        async with aclosing(self.events(exchange)) as batches:
            async for batch in batches:
                for index, event in batch:
                    self.answer.add(index, event)
        body = orjson.dumps(self.answer.to_json())
        await Response(body, media_type="application/json")(scope, receive, send)


class StreamResponse(_AnswerResponse):
    """Sends chunks as server-sent events while tokens are made.

    It begins with the first event of the engine: what can't be answered has the status of an error.
    """

    def __init__(self, run: AnswerRun, metrics: ServerMetrics, answer: AnswerStream) -> None:
        super().__init__(run, metrics)
        self.answer = answer

    async def write(self, exchange: Exchange, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the chunks of each batch of events as they come."""
        try:
            async with aclosing(self.events(exchange)) as batches:
                async for batch in batches:
                    if not exchange.status:
                        start = {"type": "http.response.start", "status": 200}
                        await send({**start, "headers": list(STREAM_HEADERS)})
                    chunks = [c for index, event in batch for c in self.answer.chunks(index, event)]
                    if chunks:
                        await _send_part(send, b"".join(map(_event, chunks)))
        except ApiError as error:
            if not exchange.status:
                raise
            # The status is sent already. Clients raise an error for a chunk that has one.
            await _send_part(send, _event(error.body()) + DONE, more=False)
            return
        last = b"".join(map(_event, self.answer.last_chunks()))
        await _send_part(send, last + DONE, more=False)


def _event(chunk: dict[str, Any]) -> bytes:
    return b"data: " + orjson.dumps(chunk) + b"\n\n"


async def _send_part(send: Send, body: bytes, *, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})
