"""The Data pages in a real browser, and over a file of a million records."""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny
from workbench_server import (
    SIZES,
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

MARKUP = '</td><img src=x onerror="alert(1)"><script>alert(1)</script>'
ARABIC = "أين طردي؟ طلبته قبل ثلاثة أسابيع ولم يصل بعد."
MODES = [(size, dark) for size in sorted(SIZES) for dark in (False, True)]
PAIR_FILE = "preferences.jsonl"
RECORDS = 1_000_000
MAX_GROWTH_MB = 60
"""Megabytes that the server's peak memory may grow by while it shows a million records."""


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorkbench]:
    """Serve a folder whose data has markup, right-to-left text, a long text and a broken line."""
    folder = tmp_path_factory.mktemp("data")
    rows = [tiny.pair(f"Where is parcel {n}?", ("late", "lost")[n % 2]) for n in range(300)]
    rows[4] = tiny.pair(f"{MARKUP} {ARABIC}", "lost")
    rows[5] = tiny.pair("long " * 20_000, "late")
    rows[290] = tiny.pair("Where is parcel 7?", "late")  # and lost in line 8
    tiny.write_jsonl(folder / "train.jsonl", rows)
    tiny.write_jsonl(folder / "test.jsonl", rows[20:25])
    tiny.write_jsonl(folder / PAIR_FILE, tiny.preferences(3))
    (folder / "cloudft.yaml").write_text(
        "name: router\nbase_model: nova-lite\n"
        "data: {train: train.jsonl, test: test.jsonl}\nlocal: {model: smollm2-135m}\n"
    )
    # The pretrained model is converted once for all tests that load it (conftest.real_weights).
    base = tmp_path_factory.getbasetemp()
    root = base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base
    models = {"CLOUDFT_MODEL_CACHE": str(root / "real-models")}
    before = Path.cwd()
    os.chdir(folder)
    try:
        with running_workbench(folder / "home", environ=models) as running:
            yield running
    finally:
        os.chdir(before)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


def check_page(page: Page) -> None:
    assert not is_wider_than_window(page)
    assert serious_violations(page) == []


def wait_for_tokens(page: Page) -> None:
    """Wait until the page has loaded itself again with the tokens."""
    page.wait_for_selector(".tokens .k", timeout=120_000)


@pytest.mark.parametrize(("size", "dark"), MODES)
def test_list_search_and_one_record(
    workbench: RunningWorkbench, browser: Browser, size: str, dark: bool
) -> None:
    with open_page(browser, size=size, dark=dark) as page:
        page.goto(f"{workbench.url}data")
        check_page(page)
        page.click("text=train.jsonl")
        assert page.locator(".list tbody tr").count() == 25
        check_page(page)
        page.click("a[rel=next]")
        assert page.locator("caption").inner_text() == "Lines 26 to 50 of 300"
        page.fill("input[name=from]", "300")
        page.click("text=Go >> nth=-1")
        assert page.locator(".list tbody tr").count() == 1
        page.fill("input[name=q]", "ONERROR")
        page.click("button:has-text('Search')")
        assert page.locator(".list tbody tr").count() == 1
        assert MARKUP in page.locator(".list td.text").first.inner_text()
        check_page(page)
        page.click(".list td a")
        wait_for_tokens(page)
        learned = page.locator(".tokens .learned").all_inner_texts()
        assert learned[0] == "lost" and learned[1:] == ["<|im_end|>"]
        assert page.locator(".tokens .learned").last.get_attribute("class") == "k learned special"
        assert MARKUP in page.locator(".turn.user .text").inner_text()
        assert "smollm2-135m" in page.locator(".finding").inner_text()
        page.check(".ids")
        shown = "getComputedStyle(document.querySelector('.tokens .k'), '::after').content"
        assert page.evaluate(shown) == json.dumps(
            page.locator(".tokens .k").first.get_attribute("data-id")
        )
        check_page(page)


def test_a_long_record_is_cut_and_quick(workbench: RunningWorkbench, browser: Browser) -> None:
    with open_page(browser, size="narrow") as page:
        page.goto(f"{workbench.url}data/record?here=1&role=train&n=6")
        wait_for_tokens(page)
        assert page.locator("text=cut after 8,192").count() == 1
        assert page.locator(".tokens .k").count() == 1500
        check_page(page)
        page.click(".turn.user .more a")
        assert len(page.locator(".turn.user .text").inner_text()) >= 99_999
        page.locator(".tokens .cut").first.wait_for(state="attached")
        assert not is_wider_than_window(page)  # axe takes a minute for 10,000 elements


def test_a_pair_shows_both_answers(workbench: RunningWorkbench, browser: Browser) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}data/record?path={PAIR_FILE}&n=1")
        assert page.locator(".turn dt").all_inner_texts() == ["user", "chosen learned", "rejected"]
        assert page.locator(".turn.rejected mark").count() > 0
        assert page.locator("text=no job file here for this kind").count() == 1
        check_page(page)


@pytest.mark.parametrize(("size", "dark"), MODES[1:3])
def test_a_survey_leads_to_its_records(
    workbench: RunningWorkbench, browser: Browser, size: str, dark: bool
) -> None:
    with open_page(browser, size=size, dark=dark) as page:
        page.goto(f"{workbench.url}data/survey?here=1&role=train")
        if page.locator("text=Survey again").count() == 0:
            page.click("text=Survey the data")
            assert page.locator("button:has-text('Cancel')").count() == 1
            page.wait_for_selector("text=Survey again", timeout=240_000)  # it reloads itself
        check_page(page)
        assert page.locator("path.limit, rect.bin").count() > 0
        assert page.locator("#leaks-test").count() == 1
        page.click("h3#conflicts-train ~ details a >> nth=0")
        assert page.locator("h1").inner_text() == "train.jsonl:291"
        page.go_back()
        page.click(".columns th a:has-text('late') >> nth=0")
        assert set(page.locator(".list td:nth-child(3)").all_inner_texts()) == {"late"}


def memory_mb(process_id: int, name: str) -> int:
    """Return VmRSS or VmHWM (the peak of it) of a process."""
    text = Path(f"/proc/{process_id}/status").read_text()
    return int(text.split(f"{name}:")[1].split()[0]) // 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_records_take_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "many.jsonl"
    with path.open("w") as file:
        for start in range(0, RECORDS, 10_000):
            file.write(
                "".join(
                    f'{{"prompt": "Where is parcel {n}?", "completion": "lost"}}\n'
                    for n in range(start, start + 10_000)
                )
            )
    with running_workbench(tmp_path / "home") as running:
        running.get(f"data/records?path={tmp_path}")  # imports what pages need
        pid, address = running.process.pid, f"data/records?path={path}"
        before = memory_mb(pid, "VmRSS")
        assert running.get(address)[0] == 200
        end = time.monotonic() + 120
        while f"of {RECORDS:,}" not in running.get(address)[1]:
            assert time.monotonic() < end
            time.sleep(0.1)
        assert f"parcel {RECORDS - 1}?" in running.get(f"{address}&from={RECORDS}")[1]
        after = ""
        for _ in range(1000):
            status, page = running.get(f"{address}&q=parcel+{RECORDS - 2}%3F{after}")
            assert status == 200
            if "1 record found" in page:
                break
            after = "&after=" + page.split('data-after="')[1].split('"')[0]
        assert f">{RECORDS - 1:,}</a>" in page
        assert memory_mb(pid, "VmHWM") - before < MAX_GROWTH_MB
