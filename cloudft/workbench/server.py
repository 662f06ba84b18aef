"""Serve the workbench on this machine's loopback address until Ctrl-C."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable
from importlib.util import find_spec

from cloudft.errors import CloudftError, UsageError
from cloudft.web.exception_text import hide_exception_text
from cloudft.web.listening_socket import LOOPBACK, bind_socket, listen
from cloudft.workbench.workbench import Workbench

EXTRA_PACKAGES = ("jinja2", "sse_starlette", "starlette", "uvicorn")
"""Packages of the extra `ui`."""
SHUTDOWN_S = 1
"""Seconds that open pages have to end when the workbench is stopped."""


def require_extra() -> None:
    """Raise UsageError unless the extra `ui` is installed."""
    missing = [name for name in EXTRA_PACKAGES if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"the workbench needs {', '.join(missing)}, not installed here",
            fix="pip install 'cloudft[ui]'",
        )


def serve_workbench(workbench: Workbench, port: int, on_ready: Callable[[str], object]) -> None:
    """Serve until SIGINT or SIGTERM. `on_ready` gets the address of the first page.

    The socket listens before `on_ready` is called: a browser that is quick waits, and is answered.
    Raise UsageError for a port that is taken, and without the extra.
    """
    require_extra()
    import uvicorn

    from cloudft.workbench.app import build_app

    with bind_socket(LOOPBACK, port, "the workbench") as listener:
        listen(listener, "the workbench")
        config = uvicorn.Config(
            build_app(workbench),
            access_log=False,  # it would have the token in it
            log_level="warning",
            lifespan="off",
            server_header=False,
            timeout_graceful_shutdown=SHUTDOWN_S,
        )
        _load_first_page(workbench)
        logging.getLogger("uvicorn.error").addFilter(hide_exception_text)
        on_ready(f"http://{LOOPBACK}:{listener.getsockname()[1]}/{workbench.guard.token}/")
        try:
            uvicorn.Server(config).run(sockets=[listener])
        finally:
            workbench.models.close()


def _load_first_page(workbench: Workbench) -> None:
    """Import what the first page needs, and begin to read the jobs while the browser starts."""
    from cloudft.workbench.job_table import TableQuery, make_table
    from cloudft.workbench.rendering import load_templates

    def read_jobs() -> None:
        with contextlib.suppress(CloudftError):  # the first page shows it
            make_table(workbench, TableQuery())

    load_templates()
    threading.Thread(target=read_jobs, name="first page", daemon=True).start()
