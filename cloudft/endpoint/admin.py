"""Serve the status page and the administration routes, behind the token printed at the start.

    /                 the status page
    /_cloudft/*       faults, calls, account
    /moto-api/*       moto's own

The token comes as `?token=TOKEN` or as `Authorization: Bearer TOKEN`. It keeps out web pages and
the other users of the machine: these routes show prompts, and faults change what jobs do.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import orjson

from cloudft.endpoint import status_page
from cloudft.endpoint.call_log import CallLog
from cloudft.endpoint.fault_injection import FaultInjector
from cloudft.endpoint.protocols.caller_identity import BEARER_PREFIX, Caller
from cloudft.endpoint.protocols.messages import SERVER_HEADER, HttpResponse, Json, ServiceError
from cloudft.endpoint.state import ACCOUNT, State
from cloudft.endpoint.wsgi import read_body
from cloudft.web.request_guard import PAGE_HEADERS, RequestGuard

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

ADMIN_PREFIX = "/_cloudft/"
MOTO_PREFIX = "/moto-api"
LOOPBACK_ADDRESSES = {"127.0.0.1", "::1"}
JSON_HEADERS = (("Content-Type", "application/json"), *PAGE_HEADERS)
NOT_LOCAL = HttpResponse(
    403, JSON_HEADERS, b'{"message": "administration is open to this machine alone"}'
)
NO_TOKEN = HttpResponse(
    401,
    JSON_HEADERS,
    b'{"message": "the token is missing or wrong: open the address of the page that was printed'
    b' at the start, or send the header Authorization: Bearer TOKEN"}',
)


class AdminRoutes:
    """The status page and the administration routes. `jobs_folder` has a folder of each local job.

    They answer only requests from this machine that carry the guard's token.
    """

    def __init__(
        self,
        state: State,
        jobs_folder: Path,
        fault_injector: FaultInjector,
        call_log: CallLog,
        guard: RequestGuard,
    ) -> None:
        self.state = state
        self.jobs_folder = jobs_folder
        self.fault_injector = fault_injector
        self.call_log = call_log
        self.guard = guard

    def is_admin_request(self, method: str, path: str, caller: Caller) -> bool:
        """Return whether a request is for these routes. `path` is decoded, as moto compares it."""
        # S3 answers `GET /` of a signed or presigned caller (ListBuckets). Bedrock has no operation
        # there: a bearer token is ours.
        is_page = path == "/" and method == "GET" and caller.service in ("", "bedrock")
        is_page = is_page and not caller.is_presigned
        return is_page or path.startswith((ADMIN_PREFIX, MOTO_PREFIX))

    def has_token(self, environ: WSGIEnvironment, headers: Mapping[str, str]) -> bool:
        """Return whether a request carries the token."""
        header = headers.get("authorization", "")
        if header.startswith(BEARER_PREFIX):
            return self.guard.is_valid_token(header.removeprefix(BEARER_PREFIX))
        query = parse_qs(str(environ.get("QUERY_STRING", "")))
        return self.guard.is_valid_token(query.get("token", [""])[0])

    def respond(
        self, environ: WSGIEnvironment, path: str, *, has_token: bool
    ) -> HttpResponse | None:
        """Return the response to a request that the guard admitted; None if moto answers it."""
        if environ.get("REMOTE_ADDR") not in LOOPBACK_ADDRESSES:
            return NOT_LOCAL
        if not has_token:
            return NO_TOKEN
        if path == "/":
            return self._status_page()
        if path.startswith(MOTO_PREFIX):
            return None
        try:
            return self._route(environ, path.removeprefix(ADMIN_PREFIX))
        except (ServiceError, ValueError) as error:
            return _json_response({"message": str(error)}, status=400)

    def _status_page(self) -> HttpResponse:
        content = status_page.render_page(self.state, self.jobs_folder, self.call_log)
        policy = (
            f"default-src 'none'; style-src '{status_page.style_hash()}'; frame-ancestors 'none';"
            " base-uri 'none'; form-action 'none'"
        )
        headers = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", policy),
            *PAGE_HEADERS,
        )
        return HttpResponse(200, headers, content)

    def _route(self, environ: WSGIEnvironment, name: str) -> HttpResponse:
        if name == "faults":
            self.fault_injector.replace_faults(_parse_faults(read_body(environ)))
            return _json_response({})
        if name == "calls":
            calls = self.call_log.list_calls()
            content = [{"operation": c.operation, "parameters": c.parameters} for c in calls]
            # Parameters have times and bytes: shown as Python prints them.
            return HttpResponse(200, JSON_HEADERS, orjson.dumps(content, default=str))
        if name == "account":
            return _json_response({"account": ACCOUNT, "server": SERVER_HEADER})
        return _json_response({}, status=404)


def _json_response(content: Json, status: int = 200) -> HttpResponse:
    return HttpResponse(status, JSON_HEADERS, orjson.dumps(content))


def _parse_faults(body: bytes) -> Sequence[Mapping[str, Json]]:
    """Return the faults of a body. Raises ValueError for another shape."""
    faults = orjson.loads(body)
    if not isinstance(faults, list) or not all(isinstance(fault, dict) for fault in faults):
        raise ValueError("send a list of faults, each an object")
    return faults
