"""The playground in a real browser, with a model that really answers."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import uvicorn
from job_records import make_record
from processes import find_processes, wait_until
from talking_jobs import make_home
from talking_parrot import open_parrot
from workbench_server import (
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.evaluate.held_out import load_held_out_data
from cloudft.storage.home import Home
from cloudft.storage.store import Store
from cloudft.workbench.answer_runs import AnswerRuns
from cloudft.workbench.app import build_app
from cloudft.workbench.model_pool import ModelPool
from cloudft.workbench.workbench import Workbench

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

ODD = '</textarea><b>bold</b> "\u05e9\u05dc\u05d5\u05dd" \u0645\u0631\u062d\u0628\u0627'


@pytest.fixture(scope="module")
def talking_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_home(tmp_path_factory.mktemp("playing"), "talker")


@pytest.fixture(scope="module")
def workbench(talking_home: Path) -> Iterator[RunningWorkbench]:
    with running_workbench(talking_home) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as browser:
        yield browser


@pytest.fixture(scope="module")
def echoing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a workbench whose models say what they are sent; its job is on Bedrock."""
    home = Home(tmp_path_factory.mktemp("echoing"))
    with Store(home.jobs).create(make_record(Store(home.jobs), "there-0", backend="bedrock")):
        pass
    workbench = Workbench(home)
    object.__setattr__(workbench, "models", ModelPool(home, opener=open_parrot))
    object.__setattr__(workbench, "answers", AnswerRuns(workbench.models))
    config = uvicorn.Config(build_app(workbench), port=0, lifespan="off", log_level="error")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    wait_until(lambda: server.started, "the server")
    [socket] = server.servers[0].sockets
    yield f"http://127.0.0.1:{socket.getsockname()[1]}/{workbench.guard.token}/"
    server.should_exit = True
    thread.join(10)


def open_playground(page: Page, running: RunningWorkbench, *, tokens: int = 12) -> None:
    page.goto(f"{running.url}playground?job=talker")
    page.locator(".settings summary").click()
    page.fill("#max-new-tokens", str(tokens))


def send(page: Page, text: str) -> None:
    page.fill("#prompt", text)
    page.wait_for_selector("#send:enabled")  # answers before it have ended
    page.keyboard.press("Control+Enter")


def wait_for_answers(page: Page, count: int) -> None:
    """Wait until so many answers have ended, with their button for the tokens."""
    # Not wait_for_function: the page's policy forbids what it does when it has to wait.
    wait_until(lambda: page.locator(".foot button").count() == count, f"{count} answers")


def test_both_models_stream_and_stop(browser: Browser, workbench: RunningWorkbench) -> None:
    with open_page(browser) as page:
        open_playground(page, workbench, tokens=4000)
        send(page, "Where is parcel 3?")
        first = page.locator(".answer > .text").first
        wait_until(lambda: len(first.text_content() or "") > 20, "the first words")
        before = first.text_content() or ""
        wait_until(lambda: len(first.text_content() or "") > len(before) + 20, "further words")
        assert (first.text_content() or "").startswith(before), "it grows at its end"
        page.click("#stop")
        page.wait_for_selector("text=stopped", timeout=10_000)
        page.wait_for_selector("#send:enabled")
        page.click("#undo")
        assert page.locator("#turns > li").count() == 0
        assert page.input_value("#prompt") == "Where is parcel 3?"
        page.fill("#max-new-tokens", "12")
        page.click("#send")
        wait_for_answers(page, 2)
        base, tuned = page.locator(".answer > .text").all_text_contents()
        assert base and tuned and base != tuned
        page.wait_for_selector("text=parameters")
        assert "of memory, on cpu" in page.inner_text("#models")
        send(page, "And parcel 4?")
        wait_for_answers(page, 4)
        assert page.locator("#turns > li").count() == 2


def test_answers_end_when_their_page_is_left(browser: Browser, workbench: RunningWorkbench) -> None:
    with open_page(browser) as page:
        open_playground(page, workbench, tokens=4000)
        with page.expect_response("**/playground/answers") as started:
            send(page, "Where is parcel 3?")
        run = started.value.json()["id"]
        wait_until(lambda: page.locator(".answer > .text").first.text_content(), "first words")
        page.goto(workbench.url)
    status, events = workbench.get(f"playground/answers/{run}/live")
    assert status == 200 and events.count('"finish":"canceled"') == 2


def test_tokens_show_their_probability_and_what_else_there_was(
    browser: Browser, workbench: RunningWorkbench
) -> None:
    with open_page(browser) as page:
        open_playground(page, workbench)
        send(page, "Where is parcel 3?")
        wait_for_answers(page, 2)
        tuned = page.locator(".answer").nth(1)
        text = tuned.locator("> .text").text_content()
        tuned.locator("button").click()
        tokens = tuned.locator(".tokens .token")
        page.wait_for_selector(".tokens .token")
        assert "".join(tokens.all_text_contents()).replace("·", "") == text
        tokens.first.focus()
        page.keyboard.press("ArrowRight")
        page.wait_for_selector(".token.chosen >> nth=0")
        assert tokens.nth(1).evaluate("token => token === document.activeElement")
        captions = tuned.locator(".alternatives caption").all_text_contents()
        assert captions == ["tuned at this position", "base at this position"]
        rows = tuned.locator(".alternatives table").first.locator("tr")
        assert rows.count() == 5 and "←" in (rows.first.text_content() or "")
        shown = [float(cell.split()[0]) for cell in rows.locator("td.n").all_text_contents()]
        assert shown == sorted(shown, reverse=True)
        assert serious_violations(page) == []
        tuned.locator("button").click()
        assert tuned.locator("> .text").is_visible()


def test_a_saved_case_survives_a_kill_and_is_a_data_file(
    browser: Browser, talking_home: Path
) -> None:
    with running_workbench(talking_home) as running, open_page(browser) as page:
        open_playground(page, running)
        for text, expected in (("Where is parcel 3?", "Lima"), (ODD, f"{ODD} {'x' * 100_000}")):
            send(page, text)
            page.wait_for_selector("#send:enabled")
            question = page.locator("#turns > li").last.locator(".question")
            assert question.locator(".text").text_content() == text
            question.locator("button").click()
            question.locator("textarea").fill(expected)
            question.locator(".save button").click()
            page.wait_for_selector("text=Saved in cases")
            page.click("#reset")
        os.kill(running.process.pid, signal.SIGKILL)
        running.process.wait()
    job = next((talking_home / "jobs").iterdir())
    program = f"local_backend.inference.generate {job}"
    wait_until(lambda: len(find_processes(program)) <= 1, "its model process has ended")
    path = talking_home / "cases" / "cases.jsonl"
    assert [json.loads(line)["prompt"] for line in path.read_bytes().splitlines()] == [
        "Where is parcel 3?",
        ODD,
    ]
    record = Store(talking_home / "jobs").get(job.name)
    held_out = load_held_out_data(record, Home(talking_home), path)
    assert [example.reference for example in held_out.examples] == [
        "Lima",
        f"{ODD} {'x' * 100_000}",
    ]


@pytest.mark.parametrize("size", ["narrow", "wide"])
def test_the_page_fits_and_runs_its_cases(
    browser: Browser, workbench: RunningWorkbench, talking_home: Path, size: str
) -> None:
    folder = talking_home / "cases"
    folder.mkdir(exist_ok=True)
    cases = [
        {"prompt": "Where is parcel 3?", "completion": ODD},
        {"prompt": f"{ODD} {'y' * 90_000}"},
    ]
    (folder / "shown.jsonl").write_text("".join(json.dumps(case) + "\n" for case in cases))
    with open_page(browser, size=size, dark=size == "narrow") as page:
        page.goto(f"{workbench.url}playground?job=talker&set=shown")
        page.locator(".settings summary").click()
        page.fill("#max-new-tokens", "8")
        page.click("#run-cases")
        page.wait_for_selector("text=4 of 4 answers")
        verdicts = page.locator(".verdict").all_text_contents()
        assert verdicts == ["✗ differs", "✗ differs", "failed", "failed"], "the last is too long"
        assert "1 of them has no expected answer" in page.inner_text("#cases")
        assert page.locator(".cases b").count() == 0, "markup is text"
        assert serious_violations(page) == []
        assert not is_wider_than_window(page)


def test_the_jobs_to_choose_from_are_shown_without_a_script(workbench: RunningWorkbench) -> None:
    status, text = workbench.get("playground")
    assert status == 200 and "talker-" in text and "its base model" in text
    status, text = workbench.get("playground?job=nobody")
    assert status == 404
    status, text = workbench.get("playground?job=talker&set=shown")
    assert status == 200 and "&lt;b&gt;bold&lt;/b&gt;" in text


def test_odd_and_long_answers_are_texts_and_billed_ones_wait_for_a_check(
    browser: Browser, echoing: str
) -> None:
    with open_page(browser, size="narrow") as page:
        page.goto(f"{echoing}playground?job=there")
        send(page, "Are you there?")
        page.wait_for_selector("#problem:not([hidden])")
        assert "are billed" in page.inner_text("#problem")
        page.wait_for_selector("#confirm-price:enabled")
        assert "no price is known" in page.inner_text("#price") or "USD" in page.inner_text(
            "#price"
        )
        page.check("#confirm-price")
        long = ODD.replace(" ", "_") + "\u0627" * 100_000
        send(page, long)
        page.wait_for_selector("#send:enabled")
        answers = page.locator(".answer > .text")
        assert answers.count() == 2
        assert (answers.first.text_content() or "").startswith(long[:4000])
        answers.first.locator("button").click()
        assert answers.first.text_content() == f"{long} "
        assert page.locator("#turns b").count() == 0, "markup is text"
        assert not is_wider_than_window(page)
        assert serious_violations(page) == []
