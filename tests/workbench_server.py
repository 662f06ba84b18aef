"""A running `cloudft ui`, and a real browser that looks at it."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import npm_browser
import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
BROWSER_FLAGS = ["--no-sandbox", "--disable-gpu", "--no-first-run"]
SIZES = {"wide": (1280, 900), "narrow": (390, 844)}
"""Name -> width and height of a window in CSS pixels."""
SERIOUS = ("serious", "critical")


@dataclass(frozen=True)
class RunningWorkbench:
    """`url` ends in a slash, after the token."""

    url: str
    process: subprocess.Popen[str]

    def get(self, path: str = "", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Return status and text of a page; `path` is without the slash at its beginning."""
        try:
            with urlopen(Request(self.url + path, headers=dict(headers or {})), timeout=60) as got:
                return got.status, got.read().decode()
        except HTTPError as error:
            return error.code, error.read().decode()


@contextlib.contextmanager
def running_workbench(
    home: Path, *options: str, environ: Mapping[str, str] | None = None
) -> Iterator[RunningWorkbench]:
    """Serve the workbench of a home, and kill it at the end."""
    command = [sys.executable, "-m", "cloudft", "ui", "--no-browser", "-o", "json", *options]
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "CLOUDFT_HOME": str(home), **(environ or {})},
    )
    assert process.stdout is not None
    try:
        yield RunningWorkbench(json.loads(process.stdout.readline())["url"], process)
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def find_browser(folder: Path) -> str:
    """Return the path of a browser: one that is installed, else one from npm, else skip."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    return found or npm_browser.executable(npm_browser.install(folder))


@contextlib.contextmanager
def open_browser(folder: Path) -> Iterator[Browser]:
    """Start a headless browser. Skip the test where there is none."""
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=find_browser(folder), args=BROWSER_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def open_page(browser: Browser, *, size: str = "wide", dark: bool = False) -> Iterator[Page]:
    """Open a page that fails the test on an error of a script, or on what its policy blocks."""
    width, height = SIZES[size]
    context = browser.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light"
    )
    errors: list[str] = []
    page = context.new_page()
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console",
        lambda message: errors.append(message.text) if message.type == "error" else None,
    )
    try:
        yield page
        assert not errors, errors
    finally:
        context.close()


def serious_violations(page: Page) -> list[str]:
    """Return what axe finds serious or critical on a page: rule and the first element."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [
        f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found if one["impact"] in SERIOUS
    ]


def is_wider_than_window(page: Page) -> bool:
    """Return whether a page must be scrolled sideways."""
    script = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
    return bool(page.evaluate(script))
