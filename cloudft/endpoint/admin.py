"""The endpoint's own page and administration, behind the token that is printed at the start.

    /                 the page
    /_cloudft/*       faults, calls, account
    /moto-api/*       moto's own

The token comes as `?token=TOKEN` or as `Authorization: Bearer TOKEN`. It keeps out web pages and
the other users of the machine: what is read here holds prompts, and faults change what jobs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from cloudft.endpoint import front
from cloudft.endpoint.authentication import BEARER, Caller
from cloudft.endpoint.state import ACCOUNT
from cloudft.endpoint.wire import SERVER, Reply, WireError
from cloudft.endpoint.wsgi import Environ, body_of_request
from cloudft.local_http_guard import PAGE_HEADERS, Guard

if TYPE_CHECKING:
    from cloudft.endpoint.app import App

ADMIN = "/_cloudft/"
MOTO = "/moto-api"
LOOPBACK = {"127.0.0.1", "::1"}
JSON = (("Content-Type", "application/json"), *PAGE_HEADERS)
ELSEWHERE = Reply(403, JSON, b'{"message": "only this machine may ask that"}')
NO_TOKEN = Reply(
    401,
    JSON,
    b'{"message": "the token is missing or wrong: take the address of the page that was printed'
    b' at the start, or send the header Authorization: Bearer TOKEN"}',
)


class Admin:
    """Answers for the page and the routes of administration."""

    def __init__(self, app: App, guard: Guard) -> None:
        self.app = app
        self.guard = guard

    def serves(self, method: str, path: str, caller: Caller) -> bool:
        """Return whether a request is for administration. `path` is the decoded one, as moto's."""
        # Bedrock has no operation at `/`: a bearer token there is ours.
        page = path == "/" and method == "GET" and caller.service in ("", "bedrock")
        page = page and not caller.presigned
        return page or path.startswith((ADMIN, MOTO))

    def has_token(self, environ: Environ, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token."""
        query = parse_qs(str(environ.get("QUERY_STRING", ""))).get("token", [""])
        header = headers.get("authorization", "")
        given = header.removeprefix(BEARER) if header.startswith(BEARER) else query[0]
        return self.guard.admits(given)

    def reply(self, environ: Environ, path: str, *, has_token: bool) -> Reply | None:
        """Return the answer to an admitted request; None for what is moto's to answer."""
        if environ.get("REMOTE_ADDR") not in LOOPBACK:
            return ELSEWHERE
        if not has_token:
            return NO_TOKEN
        if path == "/":
            return self._page()
        if path.startswith(MOTO):
            return None
        try:
            return self._route(environ, path)
        except (WireError, ValueError) as error:
            return Reply(400, JSON, orjson.dumps({"message": str(error)}))

    def _page(self) -> Reply:
        app = self.app
        content = front.page(app.state, app.curves, app.calls)
        policy = f"default-src 'none'; style-src '{front.STYLE_HASH}'; frame-ancestors 'none'"
        headers = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", f"{policy}; base-uri 'none'; form-action 'none'"),
            *PAGE_HEADERS,
        )
        return Reply(200, headers, content)

    def _route(self, environ: Environ, path: str) -> Reply:
        if path == f"{ADMIN}faults":
            self.app.faults.order(_orders(body_of_request(environ)))
            return Reply(200, JSON, b"{}")
        if path == f"{ADMIN}calls":
            with self.app.lock:
                calls = list(self.app.calls)
            listed = [{"operation": c.operation, "parameters": c.parameters} for c in calls]
            return Reply(200, JSON, orjson.dumps(listed, default=str))
        if path == f"{ADMIN}account":
            return Reply(200, JSON, orjson.dumps({"account": ACCOUNT, "server": SERVER}))
        return Reply(404, JSON, b"{}")


def _orders(body: bytes) -> Sequence[Mapping[str, object]]:
    """Return the faults that a body orders. Raise ValueError for another shape."""
    orders = orjson.loads(body)
    if not isinstance(orders, list) or not all(isinstance(order, dict) for order in orders):
        raise ValueError("send a list of faults, each an object")
    return orders
