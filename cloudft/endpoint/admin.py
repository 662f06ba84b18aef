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

from cloudft.endpoint import status_page
from cloudft.endpoint.protocols.caller_identity import BEARER_PREFIX, Caller
from cloudft.endpoint.protocols.messages import SERVER_HEADER, HttpResponse, ServiceError
from cloudft.endpoint.state import ACCOUNT
from cloudft.endpoint.wsgi import Environ, read_body
from cloudft.web.request_guard import PAGE_HEADERS, RequestGuard

if TYPE_CHECKING:
    from cloudft.endpoint.app import App

ADMIN_PREFIX = "/_cloudft/"
MOTO_PREFIX = "/moto-api"
LOOPBACK_ADDRESSES = {"127.0.0.1", "::1"}
JSON_HEADERS = (("Content-Type", "application/json"), *PAGE_HEADERS)
NOT_LOCAL = HttpResponse(403, JSON_HEADERS, b'{"message": "only this machine may ask that"}')
NO_TOKEN = HttpResponse(
    401,
    JSON_HEADERS,
    b'{"message": "the token is missing or wrong: take the address of the page that was printed'
    b' at the start, or send the header Authorization: Bearer TOKEN"}',
)


class AdminRoutes:
    """Answers for the page and the routes of administration."""

    def __init__(self, app: App, guard: RequestGuard) -> None:
        self.app = app
        self.guard = guard

    def is_admin_request(self, method: str, path: str, caller: Caller) -> bool:
        """Return whether a request is for administration. `path` is the decoded one, as moto's."""
        # Bedrock has no operation at `/`: a bearer token there is ours.
        page = path == "/" and method == "GET" and caller.service in ("", "bedrock")
        page = page and not caller.is_presigned
        return page or path.startswith((ADMIN_PREFIX, MOTO_PREFIX))

    def has_token(self, environ: Environ, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token."""
        query = parse_qs(str(environ.get("QUERY_STRING", ""))).get("token", [""])
        header = headers.get("authorization", "")
        given = header.removeprefix(BEARER_PREFIX) if header.startswith(BEARER_PREFIX) else query[0]
        return self.guard.is_valid_token(given)

    def respond(self, environ: Environ, path: str, *, has_token: bool) -> HttpResponse | None:
        """Return the answer to an admitted request; None for what is moto's to answer."""
        if environ.get("REMOTE_ADDR") not in LOOPBACK_ADDRESSES:
            return NOT_LOCAL
        if not has_token:
            return NO_TOKEN
        if path == "/":
            return self._status_page()
        if path.startswith(MOTO_PREFIX):
            return None
        try:
            return self._route(environ, path)
        except (ServiceError, ValueError) as error:
            return HttpResponse(400, JSON_HEADERS, orjson.dumps({"message": str(error)}))

    def _status_page(self) -> HttpResponse:
        app = self.app
        content = status_page.render_page(app.state, app.jobs_folder, app.calls)
        policy = f"default-src 'none'; style-src '{status_page.STYLE_HASH}'; frame-ancestors 'none'"
        headers = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", f"{policy}; base-uri 'none'; form-action 'none'"),
            *PAGE_HEADERS,
        )
        return HttpResponse(200, headers, content)

    def _route(self, environ: Environ, path: str) -> HttpResponse:
        if path == f"{ADMIN_PREFIX}faults":
            self.app.fault_injector.replace_faults(_parse_faults(read_body(environ)))
            return HttpResponse(200, JSON_HEADERS, b"{}")
        if path == f"{ADMIN_PREFIX}calls":
            with self.app.lock:
                calls = list(self.app.calls)
            listed = [{"operation": c.operation, "parameters": c.parameters} for c in calls]
            return HttpResponse(200, JSON_HEADERS, orjson.dumps(listed, default=str))
        if path == f"{ADMIN_PREFIX}account":
            return HttpResponse(
                200, JSON_HEADERS, orjson.dumps({"account": ACCOUNT, "server": SERVER_HEADER})
            )
        return HttpResponse(404, JSON_HEADERS, b"{}")


def _parse_faults(body: bytes) -> Sequence[Mapping[str, object]]:
    """Return the faults that a body orders. Raise ValueError for another shape."""
    orders = orjson.loads(body)
    if not isinstance(orders, list) or not all(isinstance(order, dict) for order in orders):
        raise ValueError("send a list of faults, each an object")
    return orders
