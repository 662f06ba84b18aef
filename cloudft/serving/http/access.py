"""Give every response its request id, and refuse requests of foreign pages and without the key.

Every request passes here first. What no other part has caught becomes an error 500 whose cause is
in the log, by its request id and without the text of the exception: that may quote a prompt.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from cloudft.serving.http.errors import ApiError, internal_error
from cloudft.serving.http.exchange import CANCELED, Exchange, begin_exchange
from cloudft.web.request_guard import STORED_HEADERS, RequestGuard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from cloudft.serving.http.metrics import ServerMetrics

OPEN_PATHS = frozenset({"/health"})
"""Paths that need no key: a load balancer has none."""
MAX_FRAMES = 30
"""Frames of an error in the log, the innermost ones."""
LOG = logging.getLogger("cloudft.serve")


@dataclass(frozen=True)
class AccessRules:
    """Who may use a server: programs on this machine, or those that have `api_key`.

    Of a browser no page may, whatever the key: there is no page of the server's own.
    """

    api_key: str | None = field(default=None, repr=False)
    guard: RequestGuard = field(default_factory=RequestGuard)

    def refusal(self, method: str, path: str, headers: Mapping[str, str]) -> ApiError | None:
        """Return why a request is refused, or None when it may pass."""
        has_key = self.api_key is None or self._has_key(headers)
        # A page that reaches this server by a name of its own (DNS rebinding) does not have the
        # key: with it, any name is the server's.
        checked = dict(headers)
        if self.api_key is not None and has_key:
            checked.pop("host", None)
        reason = self.guard.refusal_reason(method, checked)
        if reason is not None:
            return ApiError(403, f"Refused: {reason}.", code="foreign_origin")
        if not has_key and path not in OPEN_PATHS:
            return ApiError(
                401,
                "Incorrect API key provided. Send the server's key as `Authorization: Bearer KEY`.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return None

    def _has_key(self, headers: Mapping[str, str]) -> bool:
        scheme, _, sent = headers.get("authorization", "").partition(" ")
        digests = [
            hashlib.sha256(key.encode()).digest() for key in (sent.strip(), self.api_key or "")
        ]
        return scheme.lower() == "bearer" and hmac.compare_digest(*digests)


class AccessMiddleware:
    """The outermost frame of a request."""

    def __init__(self, app: ASGIApp, rules: AccessRules, metrics: ServerMetrics) -> None:
        self.app, self.rules, self.metrics = app, rules, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it; count it at its end."""
        if scope["type"] != "http":
            return
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in scope["headers"]
        }
        exchange = begin_exchange(scope, headers)

        async def send_marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                own = [("x-request-id", exchange.request_id), *STORED_HEADERS]
                encoded = [(name.lower().encode(), value.encode()) for name, value in own]
                message["headers"] = [*message.get("headers", ()), *encoded]
            await send(message)

        refusal = self.rules.refusal(scope["method"], scope["path"], headers)
        try:
            if refusal is not None:
                await refusal.response()(scope, receive, send_marked)
            else:
                await self._pass_on(scope, receive, send_marked, exchange)
        finally:
            if exchange.was_canceled:
                exchange.status = CANCELED
            self.metrics.count_request(exchange)

    async def _pass_on(
        self, scope: Scope, receive: Receive, send: Send, exchange: Exchange
    ) -> None:
        try:
            await self.app(scope, receive, send)
        except Exception as error:
            exchange.was_canceled = False
            where = "".join(traceback.format_tb(error.__traceback__, limit=-MAX_FRAMES))
            LOG.error("request %s failed\n%s%s", exchange.request_id, where, type(error).__name__)
            if exchange.status:  # the response has begun, and can only be cut off
                raise
            await internal_error().response()(scope, receive, send)
