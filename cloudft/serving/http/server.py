"""Serve an engine's models over HTTP until Ctrl-C."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from importlib.util import find_spec
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
    EngineFailed where the engine has ended by itself.
    """
    import uvicorn

    from cloudft.serving.http.app import build_app
    from cloudft.serving.http.patient_server import PatientServer

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
    server = PatientServer(config, engine, on_end)
    server.run(sockets=[bound])
    if not engine.is_alive:
        engine.stats()  # raises why
    return not server.force_exit
