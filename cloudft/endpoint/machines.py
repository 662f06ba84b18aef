"""Step Functions: moto's, which runs machines from the first request for it on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

SERVICE = "/states/aws4_request"
"""In the signature of a request for Step Functions."""


class Machines:
    """A WSGI application around moto's. `services` gives the client of what machines call."""

    def __init__(self, moto: Callable[..., Any], services: Callable[[str], Any]) -> None:
        self._moto = moto
        self._services = services
        self._lock = threading.Lock()
        self._mended = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Let moto answer; mend its interpreter before the first machine."""
        if SERVICE in environ.get("HTTP_AUTHORIZATION", ""):
            self._mend()
        return self._moto(environ, start)

    def _mend(self) -> None:
        with self._lock:
            if not self._mended:
                from cloudft.endpoint.interpreter import install  # takes a second or two

                install(self._services)
                self._mended = True
