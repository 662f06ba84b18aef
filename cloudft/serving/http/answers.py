"""Bring an engine's events from its thread into the server's event loop, and cancel in time."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from cloudft.errors import CloudftError
from cloudft.serving.engine import (
    Engine,
    EngineEnd,
    EngineEvent,
    EngineFailure,
    EngineModel,
    EngineRequest,
)
from cloudft.serving.http.errors import ApiError, from_engine


@dataclass(frozen=True)
class ChoiceEvent:
    """An event of one of a request's answers. `index` is its choice."""

    index: int
    event: EngineEvent


class AnswerRun:
    """The answers to one HTTP request, from `start` until all have ended or `cancel`.

    `members` maps the fields of EngineRequest to the members of the body that errors name.
    """

    def __init__(self, engine: Engine, model: EngineModel, members: Mapping[str, str]) -> None:
        self._engine, self._model, self._members = engine, model, members
        self._queue: asyncio.Queue[ChoiceEvent] = asyncio.Queue()
        self._open: dict[int, str] = {}

    def start(self, requests: Sequence[EngineRequest]) -> None:
        """Submit all requests. Raise ApiError; none of them goes on then."""
        loop = asyncio.get_running_loop()
        for index, request in enumerate(requests):
            hand_over = partial(self._hand_over, loop, index)
            try:
                self._open[index] = self._engine.submit(request, hand_over)
            except CloudftError as error:
                self.cancel()
                raise self._api_error(error) from error

    def _hand_over(self, loop: asyncio.AbstractEventLoop, index: int, event: EngineEvent) -> None:
        """Put an event into the queue, called in the engine's thread."""
        # The loop has ended where the server was stopped at once: nobody waits for the event.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(self._queue.put_nowait, ChoiceEvent(index, event))

    async def events(self) -> AsyncGenerator[list[ChoiceEvent], None]:
        """Yield events as they come, those that have come together as one list.

        Raise ApiError for a failure, after what came before it; the other answers are canceled.
        """
        while self._open:
            batch = [await self._queue.get()]
            while not self._queue.empty():
                batch.append(self._queue.get_nowait())
            for position, one in enumerate(batch):
                if isinstance(one.event, EngineFailure):
                    if position:
                        yield batch[:position]
                    self.cancel()
                    raise self._api_error(one.event.error)
                if isinstance(one.event, EngineEnd):
                    self._open.pop(one.index, None)
            yield batch

    def _api_error(self, error: CloudftError) -> ApiError:
        return from_engine(error, self._model.context, self._members)

    def cancel(self) -> None:
        """Cancel what has not ended, within one token."""
        while self._open:
            _, request_id = self._open.popitem()
            self._engine.cancel(request_id)
