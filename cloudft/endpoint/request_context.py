"""What the code that answers a request may know of it: its id, and whether its caller has gone.

The server answers each request in a thread of its own, a stream's parts included. Threads that
answer no request (those of jobs) have no connection and a new id each time.
"""

from __future__ import annotations

import select
import socket
import uuid
from collections.abc import Mapping
from contextvars import ContextVar
from typing import Any

SOCKET_VARIABLE = "werkzeug.socket"
"""Variable in which the server keeps the connection (werkzeug, `serving.py`)."""

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
_connection: ContextVar[socket.socket | None] = ContextVar("connection", default=None)


def begin_request(environ: Mapping[str, Any]) -> None:
    """Give the request of this thread an id, and remember its connection."""
    _request_id.set(str(uuid.uuid4()))
    _connection.set(environ.get(SOCKET_VARIABLE))


def request_id() -> str:
    """Return the id of this thread's request, which its response has in a header."""
    return _request_id.get() or str(uuid.uuid4())


def caller_is_gone() -> bool:
    """Return whether the caller has closed the connection of this thread's request."""
    connection = _connection.get()
    if connection is None:
        return False
    try:
        # A poll, because select() knows no descriptors above 1023.
        poll = select.poll()
        poll.register(connection, select.POLLIN)
        if not poll.poll(0):
            return False
        return connection.recv(1, socket.MSG_PEEK) == b""
    except (OSError, ValueError):  # reset by the caller, or closed here
        return True
