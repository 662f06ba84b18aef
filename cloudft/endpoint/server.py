"""Serve the endpoint over HTTP until the process ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from cloudft.endpoint.options import LOOPBACK_HOSTS, EndpointOptions, new_token
from cloudft.endpoint.protocols.messages import SERVER_HEADER, ConnectionDropped
from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error, try_lock

if TYPE_CHECKING:
    from werkzeug.serving import WSGIRequestHandler

__all__ = ["LOOPBACK_HOSTS", "EndpointOptions", "new_token", "open_listening_socket", "serve"]
EXTRA_PACKAGES = ("flask", "flask_cors", "jinja2", "jsonata", "moto", "werkzeug")
"""Packages of the extra `endpoint`: looked for, not imported, for moto alone takes a second."""


def require_extra() -> None:
    """Raise UsageError unless the extra `endpoint` is installed."""
    missing = [name for name in EXTRA_PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the endpoint needs {', '.join(missing)}, not installed here",
            fix="pip install 'cloudft[endpoint]'",
        )


def serve(
    options: EndpointOptions,
    on_ready: Callable[[str], None],
    warn: Callable[[str], object] = print,
    note: Callable[[str], object] = print,
) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` gets the URL once clients may connect.

    `warn` gets sentences about a damaged state and about jobs that learned nothing, `note` about
    the start of the stand-in. Raises UsageError; StoreError and BadDocument for a state that can't
    be used.
    """
    require_extra()
    from werkzeug.serving import make_server

    from cloudft.endpoint.build import build_endpoint

    with contextlib.ExitStack() as stack:
        folder = options.state
        if folder is None:
            temporary = tempfile.TemporaryDirectory(prefix="cloudft-endpoint-")
            folder = Path(stack.enter_context(temporary))
        _lock_state_folder(folder, stack)
        # The socket listens before the endpoint is built: its own clients need the port's number,
        # and requests that come early wait in the socket's queue.
        listener = stack.enter_context(open_listening_socket(options.host, options.port))
        host = options.host if options.host in LOOPBACK_HOSTS else "127.0.0.1"
        url = f"http://{host}:{listener.getsockname()[1]}"
        endpoint = build_endpoint(options, url, folder, warn)
        server = make_server(
            options.host,
            0,
            endpoint.app,
            threaded=True,
            request_handler=request_handler_class(),
            fd=listener.fileno(),
        )
        server.passthrough_errors = True
        # A connection that a client keeps open must not keep the process alive.
        vars(server)["daemon_threads"] = True
        stack.callback(endpoint.close)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if options.until_pid:
            arguments = (options.until_pid,)
            threading.Thread(target=_terminate_after, args=arguments, daemon=True).start()
        # Unfinished jobs call this endpoint themselves: they can only start while it serves.
        threading.Thread(target=endpoint.resume_unfinished_work, daemon=True).start()
        on_ready(url)
        if options.warm_up and not options.fast:
            threading.Thread(target=endpoint.warm_up, args=(note,), daemon=True).start()
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever()


def open_listening_socket(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises UsageError."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        fix = "choose another --port; 0 takes a free one."
        raise UsageError(f"can't listen on {host}:{port}: {error.strerror}", fix=fix) from error
    listener.listen(128)
    return listener


def _lock_state_folder(folder: Path, stack: contextlib.ExitStack) -> None:
    """Create the folder, private to its owner (it holds training data), and lock it.

    Raises UsageError while another endpoint has it: two would overwrite each other's state.
    """
    with as_store_error("the endpoint's folder can't be used", folder):
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = try_lock(folder / "endpoint.lock")
    if lock is None:
        message = f"another endpoint keeps its state in {folder}"
        raise UsageError(message, fix="choose another folder for --state.")
    stack.callback(os.close, lock)


def _terminate_after(pid: int) -> None:
    """Terminate this process, in an orderly way, when the process `pid` is gone."""
    while True:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            os.kill(os.getpid(), signal.SIGTERM)
            return  # a second signal would interrupt the orderly end
        time.sleep(1)


def request_handler_class() -> type[WSGIRequestHandler]:
    # Defined here because moto is imported only by a process that serves.
    from cloudft.endpoint.moto.moto_app import load_request_handler

    class Handler(load_request_handler()):  # type: ignore[misc] # a class that mypy can't know
        """HTTP/1.1 with the endpoint's own `Server` header and without a request log."""

        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        """Each part of a stream is sent when it is made, not with the next one."""

        def version_string(self) -> str:
            return SERVER_HEADER

        def log(self, type: str, message: str, *args: object) -> None:
            """Do nothing: requests are not logged, for they may hold private data."""

        def run_wsgi(self) -> None:
            """Answer a request; close the connection without a response if it is to be dropped."""
            try:
                super().run_wsgi()
            except ConnectionDropped:
                self.close_connection = True
                with contextlib.suppress(OSError):
                    self.connection.shutdown(socket.SHUT_RDWR)

    return Handler
