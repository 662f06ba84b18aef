"""Step Functions: moto's, which runs machines from the first request for it on."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

STEP_FUNCTIONS_SCOPE = "/states/aws4_request"
"""In the signature of a request for Step Functions."""


class StepFunctionsMiddleware:
    """A WSGI application around moto's. `services` gives the client of what machines call."""

    def __init__(self, moto: Callable[..., Any], client: Callable[[str], Any]) -> None:
        self._moto = moto
        self._client = client
        self._lock = threading.Lock()
        self._is_patched = False

    def __call__(self, environ: dict[str, Any], start: Callable[..., Any]) -> Any:
        """Let moto answer; mend its interpreter before the first machine."""
        if STEP_FUNCTIONS_SCOPE in environ.get("HTTP_AUTHORIZATION", ""):
            self._patch_interpreter()
        return self._moto(environ, start)

    def _patch_interpreter(self) -> None:
        with self._lock:
            if not self._is_patched:
                from cloudft.endpoint.moto.step_functions_interpreter import (
                    patch_moto,  # takes a second or two
                )

                patch_moto(self._client)
                self._is_patched = True
