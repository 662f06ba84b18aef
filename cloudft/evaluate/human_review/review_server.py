"""The review's page and what it talks to: this machine alone, one reviewer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any

import orjson

from cloudft.errors import CloudftError
from cloudft.evaluate.human_review.review import Reviewer
from cloudft.web.request_guard import PAGE_HEADERS, RequestGuard

MAX_BODY_BYTES = 100_000
"""Bytes of a request's body."""
HTML_TYPE = "text/html; charset=utf-8"
JSON_TYPE = "application/json"


class ReviewServer(ThreadingHTTPServer):
    """Serves one reviewer at `url`. The path's token keeps other users of the machine out.

    `judged` is called after each judgement.
    """

    daemon_threads = True

    def __init__(
        self, reviewer: Reviewer, port: int = 0, on_judgment: Callable[[], object] = object
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reviewer, self.on_judgment = reviewer, on_judgment
        self.guard, self.nonce = RequestGuard(), secrets.token_urlsafe(16)
        page = files("cloudft.evaluate.report.pages").joinpath("review.html").read_text("utf-8")
        self.page = page.replace("NONCE", self.nonce).encode()

    @property
    def url(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.guard.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30

    def do_GET(self) -> None:
        """The page, or a record: `record` (the next), `record/N`."""
        path = self._path()
        if path is None:
            return
        if path == "":
            self._send(HTTPStatus.OK, self.server.page, HTML_TYPE)
        elif path == "record":
            self._answer(lambda: self.server.reviewer.get_record())
        elif path.startswith("record/") and path[7:].isdecimal() and len(path) < 20:
            self._answer(lambda: self.server.reviewer.get_record(int(path[7:])))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", JSON_TYPE)

    def do_POST(self) -> None:
        """`judge`: {"position", "choice", "note"}; answers with the next record."""
        path = self._path()
        if path is None:
            return
        size = self.headers.get("Content-Length", "")
        if path != "judge" or not size.isdecimal() or int(size) > MAX_BODY_BYTES:
            self._send(HTTPStatus.BAD_REQUEST, b"{}", JSON_TYPE)
            return
        body = self.rfile.read(int(size))
        self._answer(lambda: self._judge(body))

    def _judge(self, body: bytes) -> dict[str, Any]:
        value = orjson.loads(body)
        position, choice, note = value["position"], value["choice"], value.get("note", "")
        if not (isinstance(position, int) and isinstance(choice, str) and isinstance(note, str)):
            raise ValueError("position is a number, choice and note are text")
        self.server.reviewer.save_judgment(position, choice, note)
        self.server.on_judgment()
        return self.server.reviewer.get_record()

    def _path(self) -> str | None:
        """Return what is behind the token, or answer here and return None where that is wrong."""
        guard = self.server.guard
        headers = {name.lower(): value for name, value in self.headers.items()}
        why = guard.refusal_reason(self.command, headers, allow_navigation=True)
        _, token, *rest = [*self.path.split("/", 2), ""][:3]
        if why is not None or not guard.is_valid_token(token):
            self._send(HTTPStatus.NOT_FOUND, b"", JSON_TYPE)
            return None
        return rest[0]

    def _answer(self, value: Callable[[], Any]) -> None:
        try:
            self._send(HTTPStatus.OK, orjson.dumps(value()), JSON_TYPE)
        except (KeyError, TypeError, ValueError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except CloudftError as error:
            self._fail(HTTPStatus.CONFLICT, f"{error.message} {error.fix or ''}".strip())

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send(status, orjson.dumps({"error": message}), JSON_TYPE)

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        nonce = self.server.nonce
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        for name, value in PAGE_HEADERS:
            self.send_header(name, value)
        self.send_header(
            "Content-Security-Policy",
            f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}';"
            " connect-src 'self'; img-src data:; frame-ancestors 'none'; base-uri 'none';"
            " form-action 'none'",
        )
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the address holds the token."""
