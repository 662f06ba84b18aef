"""Serve the review page and its requests, on this machine only and for one reviewer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files

import orjson

from cloudft.errors import CloudftError
from cloudft.evaluate.human_review.review import Reviewer, ReviewPosition
from cloudft.web.design import read_stylesheet
from cloudft.web.request_guard import PAGE_HEADERS, RequestGuard

MAX_BODY_BYTES = 100_000
HTML_TYPE = "text/html; charset=utf-8"
JSON_TYPE = "application/json"
MAX_PATH_LENGTH = 20


class ReviewServer(ThreadingHTTPServer):
    """Serves one reviewer at `url`. The token in the path keeps other users of the machine out.

    `on_judgment` is called after each judgment.
    """

    daemon_threads = True

    def __init__(
        self, reviewer: Reviewer, port: int = 0, on_judgment: Callable[[], object] = object
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.reviewer, self.on_judgment = reviewer, on_judgment
        self.guard, self.nonce = RequestGuard(), secrets.token_urlsafe(16)
        page = files("cloudft.evaluate.report.pages").joinpath("review.html").read_text("utf-8")
        page = page.replace("NONCE", self.nonce).replace("BASE_STYLE", read_stylesheet())
        self.page = page.encode()

    @property
    def url(self) -> str:
        """Return the address of the page."""
        return f"http://127.0.0.1:{self.server_port}/{self.guard.token}/"


class _Handler(BaseHTTPRequestHandler):
    server: ReviewServer
    timeout = 30

    def do_GET(self) -> None:
        """Send the page, or a record: `record` (the next), `record/N`."""
        path = self._path()
        if path is None:
            return
        if path == "":
            self._send(HTTPStatus.OK, self.server.page, HTML_TYPE)
        elif path == "record":
            self._answer(lambda: self.server.reviewer.get_record())
        elif path.startswith("record/") and path[7:].isdecimal() and len(path) < MAX_PATH_LENGTH:
            self._answer(lambda: self.server.reviewer.get_record(int(path[7:])))
        else:
            self._send(HTTPStatus.NOT_FOUND, b"", JSON_TYPE)

    def do_POST(self) -> None:
        """Save a judgment (`judge`: {"position", "choice", "note"}) and send the next record."""
        path = self._path()
        if path is None:
            return
        size = self.headers.get("Content-Length", "")
        if path != "judge" or not size.isdecimal() or int(size) > MAX_BODY_BYTES:
            self._send(HTTPStatus.BAD_REQUEST, b"{}", JSON_TYPE)
            return
        body = self.rfile.read(int(size))
        self._answer(lambda: self._judge(body))

    def _judge(self, body: bytes) -> ReviewPosition:
        value = orjson.loads(body)
        position, choice, note = value["position"], value["choice"], value.get("note", "")
        if not (isinstance(position, int) and isinstance(choice, str) and isinstance(note, str)):
            raise ValueError("position must be a number, choice and note must be text")
        self.server.reviewer.save_judgment(position, choice, note)
        self.server.on_judgment()
        return self.server.reviewer.get_record()

    def _path(self) -> str | None:
        """Return the path after the token, or send 404 and return None for a refused request."""
        guard = self.server.guard
        headers = {name.lower(): value for name, value in self.headers.items()}
        reason = guard.refusal_reason(self.command, headers, allow_navigation=True)
        _, token, *rest = [*self.path.split("/", 2), ""][:3]
        if reason is not None or not guard.is_valid_token(token):
            self._send(HTTPStatus.NOT_FOUND, b"", JSON_TYPE)
            return None
        return rest[0]

    def _answer(self, respond: Callable[[], ReviewPosition]) -> None:
        """Send what `respond` returns, or its error."""
        try:
            self._send(HTTPStatus.OK, orjson.dumps(respond()), JSON_TYPE)
        except (KeyError, TypeError, ValueError) as error:
            self._fail(HTTPStatus.BAD_REQUEST, str(error))
        except CloudftError as error:
            self._fail(HTTPStatus.CONFLICT, f"{error.message} {error.fix or ''}".strip())

    def _fail(self, status: HTTPStatus, message: str) -> None:
        self._send(status, orjson.dumps({"error": message}), JSON_TYPE)

    def _send(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        nonce = self.server.nonce
        self.send_response(status)
        self.send_header("Content-Type", content_type)
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

    def log_message(self, format: str, *args: object) -> None:
        """Log nothing: the address contains the token."""
