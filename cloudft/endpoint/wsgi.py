"""Requests and responses of WSGI, as the endpoint reads and sends them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from cloudft.endpoint.protocols.messages import HttpResponse, ServiceError
from cloudft.web.request_guard import harden_headers

Environ = dict[str, Any]


def read_body(environ: Environ) -> bytes:
    """Return what was sent. Raise ValidationException when its length can't be told."""
    chunked, length = environ.get("wsgi.input_terminated"), environ.get("CONTENT_LENGTH") or "0"
    if not (chunked or length.isdecimal()):
        raise ServiceError("ValidationException", "Content-Length is not a number")
    try:
        content: bytes = environ["wsgi.input"].read(*(() if chunked else (int(length),)))
    except OSError as error:  # a chunk that does not say its size
        raise ServiceError("ValidationException", f"The body can't be read: {error}") from None
    return content


def buffer_body(environ: Environ) -> bytes:
    """Return the body, which whoever comes next can read again."""
    body = read_body(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def request_headers(environ: Environ) -> dict[str, str]:
    """Return the headers of a request by their lower-case names."""
    headers = {
        name[5:].lower().replace("_", "-"): value
        for name, value in environ.items()
        if name.startswith("HTTP_")
    }
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            headers[name.lower().replace("_", "-")] = str(environ[name])
    return headers


def inert_start_response(start: Callable[..., Any], *, download: bool) -> Callable[..., Any]:
    """Return a WSGI start_response for content that no browser may run or hand to another page."""

    def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        good = status.startswith("2")
        return start(status, harden_headers(headers, download=download and good), *rest)

    return started


def send_response(reply: HttpResponse, start: Callable[..., Any]) -> Iterable[bytes]:
    """Send a reply."""
    length = ("Content-Length", str(len(reply.body)))
    start(f"{reply.status} {'OK' if reply.status < 400 else 'Error'}", [*reply.headers, length])
    return [reply.body]
