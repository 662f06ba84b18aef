"""Who is answered by the workbench, and with which headers."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

import pytest

from cloudft.storage.home import Home
from cloudft.web.exception_text import hide_exception_text
from cloudft.workbench.app import build_app
from cloudft.workbench.workbench import Workbench

HOST = "127.0.0.1:8600"


def ask(
    workbench: Workbench,
    path: str,
    *,
    method: str = "GET",
    body: bytes = b"",
    app: Any = None,
    **headers: str,
) -> tuple[int, dict[str, str], str]:
    """Send one request to the application; return status, headers and text.

    `app` is one that keeps its state; by default there is a new one for each request.
    """
    named = {"host": HOST, "content-length": str(len(body))} | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "scheme": "http",
        "http_version": "1.1",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
        "server": ("127.0.0.1", 8600),
        "client": ("127.0.0.1", 1),
    }
    sent: list[dict[str, Any]] = []

    is_read = False

    async def receive() -> dict[str, Any]:
        nonlocal is_read
        if is_read:  # a response that streams waits for the client to leave
            await asyncio.Event().wait()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run((app or build_app(workbench))(scope, receive, send))
    got = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
    return sent[0]["status"], got, b"".join(part.get("body", b"") for part in sent[1:]).decode()


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    return Workbench(Home(tmp_path))


def test_the_token_opens_the_first_page(workbench: Workbench) -> None:
    status, headers, page = ask(workbench, f"/{workbench.guard.token}/")
    assert status == 200 and "Jobs" in page
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "same-origin"  # else a form's Origin is null
    assert "script-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/wrong/", {}),
        ("/", {}),
        ("/wrong/static/live.js", {}),
        ("TOKEN", {"host": "example.com"}),
        ("TOKEN", {"origin": "http://example.com"}),
        ("TOKEN", {"sec_fetch_site": "cross-site", "sec_fetch_mode": "cors"}),
    ],
)
def test_others_get_nothing(workbench: Workbench, path: str, headers: dict[str, str]) -> None:
    own = path.replace("TOKEN", f"/{workbench.guard.token}/")
    assert (ask(workbench, own, **headers)[0::2]) == (404, "")


def test_a_read_only_workbench_takes_no_form(tmp_path: Path) -> None:
    workbench = Workbench(Home(tmp_path), read_only=True)
    status, _, text = ask(workbench, f"/{workbench.guard.token}/", method="POST")
    assert (status, text) == (403, "this workbench is read-only")


def test_the_log_says_where_a_fault_was_without_its_text(caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("test-of-the-log")
    logger.addFilter(hide_exception_text)
    text = " ".join(("a", "training", "record"))  # the log may show this line
    try:
        raise ValueError(text)
    except ValueError:
        logger.exception("Exception in ASGI application\n")
    assert text not in caplog.text
    assert "ValueError" in caplog.text and "test_workbench_guard.py" in caplog.text


def test_a_page_that_is_not_there_says_so(workbench: Workbench) -> None:
    status, _, page = ask(workbench, f"/{workbench.guard.token}/nothing")
    assert status == 404 and "There is no such page" in page
