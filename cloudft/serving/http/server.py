"""Serve an engine's models over HTTP until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from types import FrameType
from typing import TYPE_CHECKING

from cloudft.errors import UsageError
from cloudft.serving.engine import Engine
from cloudft.web.exception_text import hide_exception_text
from cloudft.web.listening_socket import listen

if TYPE_CHECKING:
    from cloudft.serving.http.access import AccessRules

EXTRA_PACKAGES = ("llguidance", "prometheus_client", "starlette", "uvicorn")
"""Packages of the extra `serve`."""
SERVER = "the models"
"""What errors call the server."""
END_SIGNALS = (signal.SIGINT, signal.SIGTERM)


def require_extra() -> None:
    """Raise UsageError unless the extra `serve` is installed."""
    missing = [name for name in EXTRA_PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"serving needs {', '.join(missing)}, not installed here",
            fix="pip install 'cloudft[serve]'",
        )


def serve_engine(
    engine: Engine,
    rules: AccessRules,
    bound: socket.socket,
    *,
    on_ready: Callable[[], object],
    on_end: Callable[[], object],
) -> bool:
    """Serve on a socket until SIGINT or SIGTERM, and until the answers of then have ended.

    `on_ready` is called when the socket listens, `on_end` with the first signal. A second signal
    ends the answers at once: return False then, else True. Raise UsageError for a taken port,
    TrainerError where the engine has ended by itself.
    """
    import uvicorn

    from cloudft.serving.http.app import build_app

    class PatientServer(uvicorn.Server):
        """A server that returns after a signal. uvicorn's own would kill the process with it."""

        async def on_tick(self, counter: int) -> bool:
            """Return whether to end: an engine that has ended answers nothing any more."""
            return await super().on_tick(counter) or not engine.is_alive

        @contextlib.contextmanager
        def capture_signals(self) -> Iterator[None]:
            """Handle the signals while the server runs, if this is the main thread."""
            if threading.current_thread() is not threading.main_thread():
                yield
                return
            before = {number: signal.signal(number, self.handle_exit) for number in END_SIGNALS}
            try:
                yield
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            """End when the answers have ended; at the second signal now."""
            if self.should_exit:
                self.force_exit = True
                return
            self.should_exit = True
            on_end()

    config = uvicorn.Config(
        build_app(engine, rules),
        access_log=False,
        log_level="warning",
        lifespan="off",
        server_header=False,
        # A prompt of a chat is long; requests wait in the engine's queue, not in the socket's.
        h11_max_incomplete_event_size=1 << 20,
    )
    logging.getLogger("uvicorn.error").addFilter(hide_exception_text)
    listen(bound, SERVER)
    on_ready()
    server = PatientServer(config)
    server.run(sockets=[bound])
    if not engine.is_alive:
        engine.stats()  # raises why
    return not server.force_exit
