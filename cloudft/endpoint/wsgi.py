"""Requests and responses of WSGI, as the endpoint reads and sends them."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from typing import Any

from cloudft.endpoint.wire import Reply, WireError
from cloudft.local_http_guard import protect

Environ = dict[str, Any]


def body_of_request(environ: Environ) -> bytes:
    """Return what was sent. Raise ValidationException when its length can't be told."""
    chunked, length = environ.get("wsgi.input_terminated"), environ.get("CONTENT_LENGTH") or "0"
    if not (chunked or length.isdecimal()):
        raise WireError("ValidationException", "Content-Length is not a number")
    try:
        content: bytes = environ["wsgi.input"].read(*(() if chunked else (int(length),)))
    except OSError as error:  # a chunk that does not say its size
        raise WireError("ValidationException", f"The body can't be read: {error}") from None
    return content


def keep_body(environ: Environ) -> bytes:
    """Return the body, which whoever comes next can read again."""
    body = body_of_request(environ)
    environ["wsgi.input"] = io.BytesIO(body)
    environ["CONTENT_LENGTH"] = str(len(body))
    return body


def headers_of(environ: Environ) -> dict[str, str]:
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


def inert(start: Callable[..., Any], *, download: bool) -> Callable[..., Any]:
    """Return a WSGI start_response for content that no browser may run or hand to another page."""

    def started(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
        good = status.startswith("2")
        return start(status, protect(headers, download=download and good), *rest)

    return started


def send(reply: Reply, start: Callable[..., Any]) -> Iterable[bytes]:
    """Send a reply."""
    length = ("Content-Length", str(len(reply.body)))
    start(f"{reply.status} {'OK' if reply.status < 400 else 'Error'}", [*reply.headers, length])
    return [reply.body]
