"""Send what changes to a page that is open: server-sent events (HTML Standard, section 9.2)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING

import orjson

if TYPE_CHECKING:
    from sse_starlette import EventSourceResponse
    from starlette.requests import Request

Events = Mapping[str, object]
"""Name of an event -> its data, which is sent as JSON."""
POLL_S = 0.25
"""Seconds between two looks at the disk. A point shall be seen within a second of its step."""
PING_S = 15


def stream_events(
    request: Request, look: Callable[[], Events | None], *, poll: float = POLL_S
) -> EventSourceResponse:
    """Return a response that sends what `look` returns, until the page is closed.

    `look` is called every `poll` seconds, in a thread; it returns the events that are new, which
    may be none, or None after the last one. Then the page gets the event `end` and does not ask
    again.
    """
    from sse_starlette import EventSourceResponse

    async def events() -> AsyncIterator[dict[str, str]]:
        import anyio
        from starlette.concurrency import run_in_threadpool

        while not await request.is_disconnected():
            found = await run_in_threadpool(look)
            if found is None:
                yield {"event": "end", "data": "{}"}
                return
            for name, value in found.items():
                yield {"event": name, "data": orjson.dumps(value).decode()}
            await anyio.sleep(poll)

    return EventSourceResponse(events(), ping=PING_S)
