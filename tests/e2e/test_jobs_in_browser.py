"""A real browser looks at the table of jobs and at the page of one, while jobs change."""

from __future__ import annotations

import itertools
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sample_pages import ARABIC, MARKUP
from tiny import build_model, pairs, write_job_dir
from workbench_jobs import (
    append_lines,
    falling_curve,
    make_local_job,
    running_trainer,
    train_line,
    validation_line,
    write_ending,
    write_state,
)
from workbench_server import (
    SIZES,
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

LONG = f"{MARKUP} {ARABIC} " + "x" * 100_000
NUMBERS = itertools.count(0xD0)
SECONDS_TO_SEE = 1.0
SLACK_S = 2.0
"""What a busy machine may add to that; benchmarks/workbench.py measures it on an idle one."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Home:
    made = Home(tmp_path_factory.mktemp("home"))
    curve = falling_curve(300).splitlines(keepends=True)
    curve[100] = train_line(92, float("nan"))
    curve[150] = train_line(137, 40.0)
    record = make_local_job(made, "router-0000000a", "".join(curve))
    write_state(record, 300, 400)
    failed = make_local_job(
        made, "failed-0000000b", falling_curve(5), name=LONG, base_model=LONG, tags={"a": LONG}
    )
    append_lines(failed, LONG + "\n", "trainer.log")
    write_ending(failed, "Failed", LONG)
    (made.jobs / "damaged-0000000c").mkdir()
    (made.jobs / "damaged-0000000c" / "record.json").write_text("{", "utf-8")
    return made


@pytest.fixture(scope="module")
def workbench(home: Home) -> Iterator[RunningWorkbench]:
    with running_workbench(home.path) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def path_of(page: Page, measure: str = "loss", kind: str = "train") -> str:
    """Return the drawn path of a curve; with smoothing the smoothed one."""
    chart = f'figure[data-measure="{measure}"] .plot svg path.series.{kind}:not(.raw)'
    page.wait_for_selector(chart, state="attached")
    return page.locator(chart).first.get_attribute("d") or ""


def texts(page: Page, selector: str) -> list[str]:
    return page.locator(selector).all_inner_texts()


def wait_for(page: Page, is_so: Callable[[], bool], seconds: float = 15) -> float:
    """Return after how many seconds it is so."""
    begin = time.monotonic()
    while not is_so():
        assert time.monotonic() - begin < seconds, "it never became so"
        page.wait_for_timeout(20)
    return time.monotonic() - begin


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", sorted(SIZES))
def test_every_page_fits_and_can_be_used_by_everyone(
    browser: Browser, workbench: RunningWorkbench, size: str, dark: bool
) -> None:
    with open_page(browser, size=size, dark=dark) as page:
        for path in (
            "",
            "jobs/router-0000000a",
            "jobs/failed-0000000b",
            "jobs/router-0000000a/resume",
        ):
            page.goto(workbench.url + path)
            if path == "jobs/router-0000000a":
                path_of(page)
                page.get_by_label("Show the numbers as a table").first.click()
            assert serious_violations(page) == [], path
            assert not is_wider_than_window(page), path
            assert page.locator("main b, main img").filter(has_text="bold").count() == 0
        page.goto(workbench.url)
        assert page.locator("svg.spark path").count() >= 2
        assert "damaged-0000000c" in page.inner_text("main")


def test_zoom_logarithm_and_smoothing_change_the_drawing(
    browser: Browser, workbench: RunningWorkbench
) -> None:
    with open_page(browser) as page:
        page.goto(workbench.url + "jobs/router-0000000a")
        first = path_of(page)
        figure = page.locator('figure[data-measure="loss"]')
        assert first.count("M") == 2, "a value that is not finite is a gap"
        assert figure.locator("path.gap").count() == 1
        log = figure.get_by_label("Logarithmic axis")
        log.click()
        assert log.get_attribute("aria-pressed") == "true"
        assert path_of(page) != first
        log.click()
        assert path_of(page) == first
        figure.get_by_role("slider").fill("0.9")
        wait_for(page, lambda: figure.locator("path.raw").count() == 1)
        smoothed = path_of(page)
        assert smoothed != first and figure.locator("path.raw").get_attribute("d") == first
        figure.get_by_role("slider").fill("0")
        wait_for(page, lambda: path_of(page) == first)
        _zoom_by_drag(page)
        reset = figure.get_by_label("Show all steps")
        wait_for(page, lambda: reset.is_enabled() and path_of(page) != first)
        reset.click()
        wait_for(page, lambda: path_of(page) == first)
        figure.locator(".plot").focus()
        page.keyboard.press("+")
        wait_for(page, lambda: path_of(page) != first)
        page.keyboard.press("0")
        wait_for(page, lambda: path_of(page) == first)
        page.keyboard.press("ArrowRight")
        assert "optimizer step" in figure.locator(".values").inner_text()
        page.keyboard.press("ArrowRight")
        assert "2" in figure.locator(".values b").first.inner_text()
        figure.get_by_role("button", name="validation german").click()
        assert figure.locator("path.validation").count() == 1


def _zoom_by_drag(page: Page) -> None:
    box = page.locator('figure[data-measure="loss"] .plot').bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.4, middle)
    values = page.locator('figure[data-measure="loss"] .values').inner_text()
    assert "training" in values and "validation german" in values
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    assert page.locator("rect.selection").count() == 1
    page.mouse.up()


@pytest.fixture
def live(home: Home) -> Iterator[JobRecord]:
    record = make_local_job(
        home,
        f"live-{next(NUMBERS):08x}",
        "".join(train_line(n, 3.0 - n / 10) for n in range(5)),
        created_at="2026-03-01T00:00:00.000+00:00",
    )
    write_state(record, 5, 40)
    with running_trainer(record):
        yield record


def test_a_running_job_is_seen_step_by_step(
    browser: Browser, workbench: RunningWorkbench, live: JobRecord
) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}jobs/{live.id}")
        before = path_of(page)
        page.wait_for_timeout(500)  # the page's events begin
        append_lines(live, train_line(5, 9.0))
        seen = wait_for(page, lambda: path_of(page) != before)
        assert seen < SECONDS_TO_SEE + SLACK_S
        append_lines(live, validation_line(5, 2.0, "german") + train_line(6, 2.0, kl=0.5))
        wait_for(page, lambda: page.locator('figure[data-measure="kl"] .plot svg').count() == 1)
        legend = 'figure[data-measure="loss"] .legend button'
        wait_for(page, lambda: "validation german" in texts(page, legend))
        append_lines(live, f"{MARKUP} in the log\n", "trainer.log")
        wait_for(page, lambda: f"{MARKUP} in the log" in page.inner_text("#log"))
        write_state(live, 7, 40)
        wait_for(page, lambda: "7 of 40" in page.inner_text("#head"))
        # A resume takes steps again: one curve, without the steps that were lost.
        lines = (live.folder / "metrics.jsonl").read_text("utf-8").splitlines(keepends=True)
        (live.folder / "metrics.jsonl").write_text("".join(lines[:3]), "utf-8")
        append_lines(live, "".join(train_line(n, 1.0, timestamp="again") for n in range(3, 30)))
        figure = page.locator('figure[data-measure="loss"]')
        wait_for(page, lambda: "1 at 30" in (figure.locator("desc").text_content() or ""))
        write_ending(live, "Failed", LONG)
        wait_for(page, lambda: page.inner_text("#status") == "Failed")
        assert "show all of" in page.inner_text("#head")


def test_the_table_follows_jobs(
    browser: Browser, workbench: RunningWorkbench, home: Home, live: JobRecord
) -> None:
    with open_page(browser) as page:
        page.goto(workbench.url)
        row = page.locator(f'tr[data-job="{live.id}"]')
        assert "5 / 40" in row.inner_text() and "InProgress" in row.inner_text()
        page.get_by_label(f"compare {live.id}").check()
        write_state(live, 11, 40)
        wait_for(page, lambda: "11 / 40" in row.inner_text())
        assert page.get_by_label(f"compare {live.id}").is_checked()
        make_local_job(home, "new-0000000e", created_at="2026-04-01T00:00:00.000+00:00")
        wait_for(page, lambda: "new-0000000e" in page.inner_text("main"))
        page.get_by_label("Search").fill(live.id)
        page.get_by_role("button", name="Filter").click()
        page.wait_for_url(f"**q={live.id}**")
        assert page.locator("tr[data-job]").count() == 1


def test_the_table_and_the_curves_are_readable_without_a_script(
    browser: Browser, workbench: RunningWorkbench
) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"{workbench.url}jobs/router-0000000a")
    assert page.locator('figure[data-measure="loss"] polyline.series').count() >= 3
    assert page.locator("#status").inner_text() == "Failed"
    page.goto(f"{workbench.url}?q=router")
    assert page.locator("tr[data-job]").count() == 1
    context.close()


def make_stopped_job(folder: Path, home: Home) -> JobRecord:
    """Write a job that can be trained, and was stopped before its first step."""
    record = make_local_job(home, "tiny-0000000f")
    request = json.loads((record.folder / "job.json").read_text("utf-8"))
    model = build_model(folder / "model")
    write_job_dir(record.folder, model, {"train": pairs(64)}, epochCount=500)
    trained = json.loads((record.folder / "job.json").read_text("utf-8"))
    (record.folder / "job.json").write_text(json.dumps({**request, **trained}), "utf-8")
    write_ending(record, "Stopped")
    return record


def test_a_job_is_resumed_and_stopped_by_its_page_and_outlives_the_workbench(
    browser: Browser, tmp_path: Path
) -> None:
    home = Home(tmp_path / "home")
    record = make_stopped_job(tmp_path, home)
    curve = record.folder / "metrics.jsonl"
    with open_page(browser) as page:
        with running_workbench(home.path) as workbench:
            page.goto(f"{workbench.url}jobs/{record.id}")
            page.get_by_role("link", name="Resume …").click()
            page.get_by_role("button", name="Resume").click()
            page.wait_for_url(f"**/jobs/{record.id}")
            wait_for(page, lambda: page.locator(".plot svg path.series").count() > 0, 90)
            assert page.inner_text("#status") == "InProgress"
            page.goto("about:blank")
            os.kill(workbench.process.pid, signal.SIGKILL)
            workbench.process.wait()
        steps = curve.stat().st_size
        wait_for(page, lambda: curve.stat().st_size > steps, 30)
        with running_workbench(home.path) as workbench:
            page.goto(f"{workbench.url}jobs/{record.id}")
            page.get_by_role("link", name="Stop …").click()
            page.get_by_role("button", name="Stop").click()
            page.wait_for_url(f"**/jobs/{record.id}")
            wait_for(page, lambda: page.inner_text("#status") == "Stopped", 60)
            page.reload()
            assert "then resumed" in page.inner_text("main")
            assert "step-0" in page.inner_text("main"), "it saved a checkpoint"


def set_hidden(page: Page, hidden: bool) -> None:
    """Hide a page as another tab in front of it does, or show it again."""
    page.evaluate(
        "hidden => {"
        " Object.defineProperty(document, 'hidden', { value: hidden, configurable: true });"
        " document.dispatchEvent(new Event('visibilitychange')); }",
        hidden,
    )


def test_a_page_that_was_hidden_has_each_line_once(
    browser: Browser, workbench: RunningWorkbench, live: JobRecord
) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}jobs/{live.id}")
        append_lines(live, "a line while it is open\n", "trainer.log")
        wait_for(page, lambda: "while it is open" in page.inner_text("#log"))
        set_hidden(page, True)
        append_lines(live, "a line while it is hidden\n", "trainer.log")
        set_hidden(page, False)
        wait_for(page, lambda: "while it is hidden" in page.inner_text("#log"))
        lines = page.inner_text("#log").splitlines()
        assert [line for line in lines if "while it is" in line] == [
            "a line while it is open",
            "a line while it is hidden",
        ]


def test_a_row_that_changes_keeps_the_focus_where_it_was(
    browser: Browser, workbench: RunningWorkbench, live: JobRecord
) -> None:
    with open_page(browser) as page:
        page.goto(workbench.url)
        row = page.locator(f'tr[data-job="{live.id}"]')
        page.get_by_label(f"compare {live.id}").focus()
        write_state(live, 12, 40)
        wait_for(page, lambda: "12 / 40" in row.inner_text())
        page.keyboard.press("Space")
        assert page.get_by_label(f"compare {live.id}").is_checked()


def test_a_page_says_that_its_job_was_removed_or_can_not_be_read(
    browser: Browser, workbench: RunningWorkbench, home: Home, live: JobRecord
) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}jobs/{live.id}")
        notice = page.locator(".live-notice:visible")
        content = (live.folder / "state.json").read_text("utf-8")
        page.wait_for_timeout(2500)  # the head is sent at most every two seconds
        (live.folder / "state.json").write_text("{", "utf-8")
        wait_for(page, lambda: "can't be read" in "".join(notice.all_inner_texts()))
        (live.folder / "state.json").write_text(content, "utf-8")
        wait_for(page, lambda: notice.count() == 0)
        live.folder.rename(home.path / f"gone-{live.id}")
        wait_for(page, lambda: "was removed" in "".join(notice.all_inner_texts()))
        (home.path / f"gone-{live.id}").rename(live.folder)  # the fixture's lock is in it


@pytest.mark.parametrize("place", ["", "jobs/{id}"], ids=["table", "job"])
def test_a_page_says_since_when_the_workbench_does_not_answer(
    browser: Browser, home: Home, live: JobRecord, place: str
) -> None:
    context = browser.new_context()  # the browser logs the lost connection as an error
    page = context.new_page()
    with running_workbench(home.path) as workbench:
        page.goto(workbench.url + place.format(id=live.id))
        page.wait_for_timeout(500)
        assert page.locator(".live-notice:visible").count() == 0
        workbench.process.kill()
        wait_for(page, lambda: page.locator(".live-notice:visible").count() == 1)
        assert "does not answer" in page.inner_text(".live-notice")
    context.close()
