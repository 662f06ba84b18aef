"""Run Step Functions on moto, with its interpreter patched before the first request for it."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING

from cloudft.endpoint.clients import ClientFactory

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

STEP_FUNCTIONS_SCOPE = "/states/aws4_request"
"""A part of the signature of requests to Step Functions."""


class StepFunctionsMiddleware:
    """WSGI middleware around moto. `client` returns the clients that state machines call by."""

    def __init__(self, moto: WSGIApplication, client: ClientFactory) -> None:
        self._moto = moto
        self._client = client
        self._lock = threading.Lock()
        self._is_patched = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Return moto's response; patch its interpreter before the first state machine."""
        if STEP_FUNCTIONS_SCOPE in environ.get("HTTP_AUTHORIZATION", ""):
            self._patch_interpreter()
        return self._moto(environ, start_response)

    def _patch_interpreter(self) -> None:
        with self._lock:
            if not self._is_patched:
                # Importing moto's interpreter takes a second or two: most endpoints never need it.
                from cloudft.endpoint.moto.step_functions_interpreter import patch_moto

                patch_moto(self._client)
                self._is_patched = True
