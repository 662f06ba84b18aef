"""Read WSGI requests, send the endpoint's responses, and call another WSGI application."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cloudft.endpoint.protocols.messages import HttpResponse, ServiceError
from cloudft.endpoint.request_context import request_id
from cloudft.web.request_guard import harden_headers

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HEADER_NAMES_VARIABLE = "moto.preserved_header_names"
"""Variable in which moto's request handler keeps the names of S3's metadata headers."""
REQUEST_ID_HEADERS = {"x-amzn-requestid", "x-amz-request-id"}
"""Headers in which SDKs look for the id of a request (botocore, `parsers.py`)."""


def read_body(environ: WSGIEnvironment) -> bytes:
    """Return the request's body. Raises ServiceError (ValidationException) if it can't be read."""
    # The server sets `wsgi.input_terminated` when it decodes chunks: the stream then has an end.
    chunked, length = environ.get("wsgi.input_terminated"), environ.get("CONTENT_LENGTH") or "0"
    if not (chunked or length.isdecimal()):
        raise ServiceError("ValidationException", "Content-Length is not a number")
    try:
        content: bytes = environ["wsgi.input"].read(*(() if chunked else (int(length),)))
    except OSError as error:  # a chunk without a valid size
        raise ServiceError("ValidationException", f"The body can't be read: {error}") from None
    return content


def buffer_body(environ: WSGIEnvironment) -> bytes:
    """Return the request's body, and put a copy into the environment for the next reader."""
    body = read_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def header_names(environ: Mapping[str, Any]) -> dict[str, str]:
    """Return the names with underscores of headers, by their variables, which lose them."""
    return dict(environ.get(HEADER_NAMES_VARIABLE) or {})


def request_headers(environ: WSGIEnvironment) -> dict[str, str]:
    """Return the request's headers by their lower-case names."""
    names = header_names(environ)
    headers = {
        names.get(name, name[5:].replace("_", "-")).lower(): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    # CGI, and WSGI after it, has these two without the prefix.
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.lower().replace("_", "-")] = str(environ[name])
    return headers


def inert_start_response(start_response: StartResponse, *, download: bool) -> StartResponse:
    """Return a start_response for content that no browser may run or show to another page.

    With `download`, a browser saves the content of a successful response as a file.
    """

    def start_inert(
        status: str, headers: list[tuple[str, str]], *exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        hardened = harden_headers(headers, download=download and status.startswith("2"))
        return start_response(status, hardened, *exc_info)

    return start_inert


def numbered_start_response(start_response: StartResponse, service: str) -> StartResponse:
    """Return a start_response that adds a request id unless the response has one, as on AWS.

    `service` is the signing name, empty for requests without a signature. S3 has a header of its
    own.
    """

    def start_numbered(
        status: str, headers: list[tuple[str, str]], *exc_info: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        known = {name.lower(): value for name, value in headers}
        if not REQUEST_ID_HEADERS & known.keys():
            is_s3 = service in ("", "s3") and "json" not in known.get("content-type", "")
            name = "x-amz-request-id" if is_s3 else "x-amzn-RequestId"
            headers = [*headers, (name, request_id())]
        return start_response(status, headers, *exc_info)

    return start_numbered


def send_response(response: HttpResponse, start_response: StartResponse) -> Iterable[bytes]:
    """Start a response and return its body: of a stream, what is sent part by part."""
    status = f"{response.status} {'OK' if response.status < 400 else 'Error'}"
    if not isinstance(response.body, bytes):
        # Without a length, the server sends each part as a chunk, as soon as it is there.
        start_response(status, [*response.headers])
        return response.body
    length = ("Content-Length", str(len(response.body)))
    start_response(status, [*response.headers, length])
    return [response.body]


@dataclass(frozen=True)
class WsgiResponse:
    """A complete response of a WSGI application. `status_line` is `200 OK`, for example."""

    status_line: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def status(self) -> int:
        """Return the HTTP status."""
        return int(self.status_line[:3])


def call_wsgi_app(app: WSGIApplication, environ: WSGIEnvironment) -> WsgiResponse:
    """Return the complete response of a WSGI application."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def start_response(
        status: str, headers: list[tuple[str, str]], *_: OptExcInfo | None
    ) -> Callable[[bytes], object]:
        started.append((status, headers))
        return io.BytesIO().write  # the legacy way to send a body; moto does not use it

    parts = app(environ, start_response)
    try:
        # An application may call start_response as late as with the first part.
        body = b"".join(parts)
    finally:
        close = getattr(parts, "close", None)
        if close is not None:
            close()
    return WsgiResponse(*started[-1], body)
