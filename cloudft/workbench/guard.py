"""Answer only requests with the workbench's token, host name and origin, and harden what it sends.

The token is the first part of every path. It is removed before the pages see the path, and is part
of every address that they build (`root_path` of ASGI).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from cloudft.web.request_guard import PAGE_HEADERS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloudft.workbench.workbench import Workbench

CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
"""What a page may load: this server's own scripts, styles and pictures. No script in a page."""
WORKBENCH_HEADERS = (
    ("content-security-policy", CONTENT_POLICY),
    # With `no-referrer` a browser sends `Origin: null` with a form, which is refused as a foreign
    # page's. No other server learns the address by this either.
    ("referrer-policy", "same-origin"),
)
WRITING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})
ONLY_READING = re.compile(r"/playground/answers(/[\w-]+/(stop|probabilities))?")
"""Paths whose POST writes nothing: it carries a prompt, which is too long for an address."""
NOT_HTTP = frozenset({"lifespan"})


class GuardMiddleware:
    """Sends 404 without a body to everyone who has no business here."""

    def __init__(self, app: ASGIApp, workbench: Workbench) -> None:
        self.app, self.workbench = app, workbench

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] in NOT_HTTP:
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_hardened(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = _hardened(message["headers"])
            await send(message)

        path = self._path_without_token(scope)
        if path is None:
            await _refuse(404, send_hardened)
        elif self.workbench.read_only and _writes(scope["method"], path):
            await _refuse(403, send_hardened, b"this workbench is read-only")
        else:
            root = f"/{self.workbench.guard.token}"
            inner = {**scope, "root_path": root, "path": root + path, "raw_path": None}
            await self.app(inner, receive, send_hardened)

    def _path_without_token(self, scope: Scope) -> str | None:
        """Return the path that a page has; None for a request that is refused."""
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        _, token, *rest = [*scope["path"].split("/", 2), ""][:3]
        guard = self.workbench.guard
        refused = guard.refusal_reason(scope["method"], headers, allow_navigation=True)
        if refused is not None or not guard.is_valid_token(token):
            return None
        return f"/{rest[0]}"


def _writes(method: str, path: str) -> bool:
    return method in WRITING_METHODS and not (
        method == "POST" and ONLY_READING.fullmatch(path) is not None
    )


def _hardened(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return a response's headers with those of every page, which win over the response's own."""
    own = {name.lower(): value for name, value in (*PAGE_HEADERS, *WORKBENCH_HEADERS)}
    kept = [(name, value) for name, value in headers if name.decode("latin-1") not in own]
    return kept + [(name.encode(), value.encode()) for name, value in own.items()]


async def _refuse(status: int, send: Send, body: bytes = b"") -> None:
    kind = (b"content-type", b"text/plain; charset=utf-8")
    await send({"type": "http.response.start", "status": status, "headers": [kind]})
    await send({"type": "http.response.body", "body": body})
