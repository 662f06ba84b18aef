"""Take the address that a local server answers at, before what answers there is built."""

from __future__ import annotations

import ipaddress
import socket

from cloudft.errors import UsageError

LOOPBACK = "127.0.0.1"
BACKLOG = 128


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def bind_socket(host: str, port: int, server: str) -> socket.socket:
    """Return a socket that has an address but does not listen yet; port 0 takes a free one.

    `server` is what errors call it. Raise UsageError for a port that is taken and for a host that
    is not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        bound = socket.socket(family, kind, protocol)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UsageError(
            f"{server} can't be served on {host[:200]!r}: {reason}", fix="name another --host."
        ) from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise _taken(port, server, error) from error
    return bound


def listen(bound: socket.socket, server: str) -> None:
    """Accept connections from here on: they wait until they are answered. Raise UsageError."""
    try:
        bound.listen(BACKLOG)
    except OSError as error:  # another process has bound the same port, and listens already
        raise _taken(bound.getsockname()[1], server, error) from error


def _taken(port: int, server: str, error: OSError) -> UsageError:
    return UsageError(
        f"{server} can't be served on port {port}: {error.strerror}", fix="name another --port."
    )
