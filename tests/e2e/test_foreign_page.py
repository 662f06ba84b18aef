"""A real browser on a page of another origin gets nothing from `endpoint`, `review` and `ui`."""

from __future__ import annotations

import json
import queue
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

import npm_browser
import pytest
from endpoint import BUCKET, TOKEN, Endpoint, running_endpoint
from model_results import make_model_result
from workbench_server import RunningWorkbench, running_workbench

from cloudft.evaluate.human_review.review import Review, Reviewer
from cloudft.evaluate.human_review.review_server import ReviewServer

PAGE = Path(__file__).parent / "foreign_page" / "page.html"
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-popup-blocking")
STORED = {
    "a.html": ("text/html", "<script>(opener || parent).postMessage('ran', '*')</script>"),
    "data.js": ("text/javascript", "window.saw('script')"),
    "data.css": ("text/css", "body { color: red }"),
    "pixel.svg": ("image/svg+xml", "<svg xmlns='http://www.w3.org/2000/svg'/>"),
}


class Site(BaseHTTPRequestHandler):
    """The foreign page's own server, which gets its report; also a server without doors."""

    seen: ClassVar[queue.Queue[list[str]]] = queue.Queue()
    taken: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        kind, content = STORED.get(name, ("text/html", "anything"))
        if name == "page.html":
            content = PAGE.read_text()
        if name == "calls" and "event-stream" in self.headers.get("Accept", ""):
            kind, content = "text/event-stream", "data: x\n\n"
        self._send(kind, content)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.taken.add(self.path)
        if self.path == "/seen":
            self.seen.put(json.loads(body))
        self._send("text/plain", "taken")

    do_PUT = do_DELETE = do_POST

    def do_OPTIONS(self) -> None:
        self._send("text/plain", "")

    def _send(self, kind: str, content: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        for what in ("Origin", "Methods", "Headers"):
            self.send_header(f"Access-Control-Allow-{what}", "*")
        self.end_headers()
        self.wfile.write(content.encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or npm_browser.executable(npm_browser.install(tmp_path_factory.mktemp("browser")))


@pytest.fixture(scope="module")
def site() -> Iterator[int]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Site) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


@contextmanager
def opened(browser: str, url: str, *flags: str) -> Iterator[Path]:
    """The browser on a page; its profile and its downloads are in the folder."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [browser, *FLAGS, f"--user-data-dir={folder}/profile", *flags, url]
        process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            yield Path(folder)
        finally:
            process.terminate()
            process.wait(30)


def report(browser: str, site: int, host: str, **servers: str) -> list[str]:
    """What a page at that host saw of the servers."""
    where = "&".join(f"{name}={quote(url)}" for name, url in servers.items())
    with opened(browser, f"http://{host}:{site}/page.html?{where}", "--remote-debugging-port=0"):
        return Site.seen.get(timeout=90)


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        for key, (kind, content) in STORED.items():
            made.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content, ContentType=kind)
        yield made


@pytest.fixture
def review(tmp_path: Path) -> Iterator[ReviewServer]:
    found = Review(
        tmp_path, make_model_result("first", "a", 4, "Q"), make_model_result("second", "b", 4, "Q")
    )
    found.save()
    with ReviewServer(Reviewer(found, "ada")) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def workbench(tmp_path: Path) -> Iterator[RunningWorkbench]:
    with running_workbench(tmp_path) as server:
        yield server


def test_the_page_sees_all_of_a_server_without_doors(browser: str, site: int) -> None:
    """Otherwise the next test could not fail."""
    root = f"http://localhost:{site}"
    own = f"{root}/any/"
    seen = report(browser, site, "127.0.0.1", endpoint=root, review=own, workbench=own)
    kinds = {line.split(":")[0] for line in seen}
    assert Site.taken >= {"/any/judge", "/training-bucket", "/_cloudft/faults"}
    reads = {"object", "page", "calls", "models", "record", "put", "delete", "faults", "judge"}
    reads |= {"workbench", "static", "form"}
    assert kinds >= {f"fetch {what}" for what in reads}
    assert kinds >= {"image", "script", "style", "message ran", "events"}
    assert kinds >= {"workbench-script", "workbench-image"}


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_foreign_page_gets_nothing(
    browser: str,
    site: int,
    endpoint: Endpoint,
    review: ReviewServer,
    workbench: RunningWorkbench,
    host: str,
) -> None:
    servers = {"endpoint": endpoint.url, "review": review.url, "workbench": workbench.url}
    assert report(browser, site, host, **servers) == []
    assert endpoint.object_keys() == sorted(STORED)
    assert endpoint.client("iam").list_users()["Users"] == []
    assert endpoint.client("bedrock").list_custom_models()["modelSummaries"] == []
    assert review.reviewer.judgments == {}


def test_our_own_page_is_shown_as_it_is(browser: str, endpoint: Endpoint) -> None:
    if shutil.which(Path(browser).name) != browser:
        pytest.skip("the browser of the npm package prints no page")
    command = [browser, *FLAGS, "--dump-dom", "--enable-logging=stderr"]
    done = subprocess.run(
        [*command, f"{endpoint.url}/?token={TOKEN}"],
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert "This is not AWS" in done.stdout
    assert "Security Policy" not in done.stderr, "its own style is refused"
