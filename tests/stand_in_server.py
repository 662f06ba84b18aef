"""A server of a test, in threads of its process; each stand-in has a handler of its own."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

StandIn = TypeVar("StandIn", bound="StandInServer")


class StandInServer:
    """What answers at `url` while it is `serving`, by handlers of the class `handler`.

    They find it as `self.stand_in`.
    """

    handler: type[StandInHandler]

    def __init__(self) -> None:
        handler = type("Handler", (self.handler,), {"stand_in": self})
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"

    @contextmanager
    def serving(self: StandIn) -> Iterator[StandIn]:
        thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self.server.shutdown()
            self.server.server_close()
            thread.join()


class StandInHandler(BaseHTTPRequestHandler):
    """Keeps connections, and logs nothing."""

    stand_in: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def send(self, status: int, headers: dict[str, str], content: bytes) -> None:
        """Send a response; of HEAD without its content."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
