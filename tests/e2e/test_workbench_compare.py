"""The compare page in a real browser: curves of several jobs, their settings, and leaderboards."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import compared_jobs
import pytest
import sample_pages
from workbench_server import (
    SIZES,
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.storage.atomic_files import try_lock

if TYPE_CHECKING:
    from playwright.sync_api import Browser

FIRST, WIDE = "router-lora-0a1b2c3d", "router-wide-4e5f6a7b"
SEEDED, OTHER, PLAIN = "router-lora-11111111", "answers-9f8e7d6c", "not-evaluated-00000001"
ALL = (FIRST, WIDE, SEEDED, OTHER, PLAIN)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorkbench]:
    """A workbench with five jobs: one is judged on other data, and one not at all."""
    home = tmp_path_factory.mktemp("compare") / "home"
    lora = {"r": 64, "alpha": 128.0, "target_modules": "all"}
    long = [f"/data/{sample_pages.MARKUP}/{n}.jsonl" for n in range(20)]
    first = compared_jobs.make_job(home, FIRST)
    wide = compared_jobs.make_job(
        home,
        WIDE,
        spec={"local": {"method": "lora", "lora": lora}, "data": {"train": long}},
        hyper={"learningRate": 3e-4},
        first_loss=2.5,
    )
    seeded = compared_jobs.make_job(home, SEEDED, spec={"seed": 11}, first_loss=3.1)
    other = compared_jobs.make_job(home, OTHER, spec={"tags": {"text": sample_pages.ARABIC}})
    compared_jobs.make_job(home, PLAIN, hyper={"epochCount": 4}, steps=0)
    for record, right in ((first, 0.6), (wide, 1.0), (seeded, 0.7)):
        compared_jobs.evaluate_job(record, right)
    compared_jobs.evaluate_job(other, 0.99, data="elsewhere", records=12)
    with running_workbench(home) as found:
        yield found


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as found:
        yield found


def address(workbench: RunningWorkbench, *jobs: str) -> str:
    return f"{workbench.url}compare?{'&'.join(f'job={job}' for job in jobs)}"


def test_jobs_are_picked_and_compared_in_a_browser(
    browser: Browser, workbench: RunningWorkbench
) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}compare")
        for name in (FIRST, WIDE):
            page.check(f"input[value='{name}']")
        page.click("button:has-text('Compare')")
        page.click(f"tr:has-text('{FIRST}') a:has-text('make first')")
        page.wait_for_selector("figure.chart .plot svg .series")
        assert page.locator("figure.chart .legend button").count() == 4
        colors = page.eval_on_selector_all(
            "figure.chart .plot svg polyline, figure.chart .plot svg path.series",
            "lines => [...new Set(lines.map(line => getComputedStyle(line).stroke))].length",
        )
        assert colors == 2, "one color for each job, for training and validation"
        rows = page.locator("table.leaderboard tbody tr").all_inner_texts()
        assert [row.split()[0] for row in rows] == [WIDE, FIRST, "smollm2-135m"]
        assert f"{WIDE} is better" in rows[0] and "compared with it" in rows[1]
        names = page.locator("table.settings").first.locator("tbody tr").all_inner_texts()
        differing = [row.split("\t")[0].strip() for row in names]
        assert {"local.lora.r", "local.lora.alpha", "data.train", "learningRate"} <= set(differing)
        assert "seed" not in differing and "local.method" not in differing
        page.click("summary:has-text('settings that are the same')")
        assert page.locator("table.settings").nth(1).get_by_text("local.method").is_visible()
        page.locator("table.settings details summary").first.click()
        assert page.get_by_text("<b>bold</b>").first.is_visible(), "markup is shown as text"


def test_other_data_is_never_ranked_and_seeds_are_grouped(workbench: RunningWorkbench) -> None:
    status, page = workbench.get("compare?" + "&".join(f"job={job}" for job in ALL))
    assert status == 200
    board = page.partition('class="leaderboard"')[2].partition("</table>")[0]
    assert all(name in board for name in (FIRST, WIDE, SEEDED))
    assert OTHER not in board and PLAIN not in board
    apart = page.partition("Judged on other data")[2].partition("</table>")[0]
    assert OTHER in apart and FIRST not in apart
    assert f"cloudft evaluate {PLAIN}" in page
    assert "2 seeds of one job" in page and "standard deviation" in page
    assert "<svg" in page.partition('class="chart"')[2], "the curves are there without a script"
    _, page = workbench.get(f"compare?job={FIRST}&job={OTHER}")
    assert 'class="leaderboard"' not in page and "so they are not ranked" in page
    assert workbench.get("compare?job=nothing")[0] == 404
    assert workbench.get(f"compare/chart?job={FIRST}&measure=x")[0] == 400


@pytest.mark.parametrize("size", sorted(SIZES))
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_comparison_fits_and_can_be_read(
    browser: Browser, workbench: RunningWorkbench, size: str, dark: bool
) -> None:
    with open_page(browser, size=size, dark=dark) as page:
        page.goto(address(workbench, *ALL))
        page.wait_for_selector("figure.chart .plot svg .series")
        for one in page.locator("details").all():
            one.evaluate("element => { element.open = true; }")
        assert not is_wider_than_window(page)
        assert serious_violations(page) == []


def test_without_jobs_the_page_says_how_to_start_one(browser: Browser, tmp_path: Path) -> None:
    with running_workbench(tmp_path / "empty") as empty, open_page(browser) as page:
        page.goto(f"{empty.url}compare")
        assert page.get_by_text("There are no jobs yet").is_visible()


def test_the_curve_of_a_running_job_grows_in_the_comparison(
    browser: Browser, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    record = compared_jobs.make_job(home, "running-00000001")
    (record.folder / "ended.json").unlink()
    lock = try_lock(record.folder / "lock")  # a trainer holds it as long as it lives
    assert lock is not None
    with running_workbench(home) as workbench, open_page(browser) as page:
        loaded: list[str] = []
        page.on("request", lambda request: loaded.append(request.url))
        page.goto(address(workbench, record.id))
        page.wait_for_selector("figure.chart .plot svg .series")
        curve = record.folder / "metrics.jsonl"
        last = json.loads(curve.read_text().splitlines()[-1])
        with curve.open("a") as file:
            file.write(json.dumps(last | {"step": 499, "split": "train"}) + "\n")
        with page.expect_response("**/compare/chart?*") as answer:
            pass
        series = {one["name"]: one["points"] for one in answer.value.json()["series"]}
        assert series[f"{record.id}: training"][-1][0] == 500
        scripts = [url for url in loaded if ".js" in url]
        names = {url.rpartition("/")[2].partition("?")[0] for url in scripts}
        assert {"live.js", "chart.js", "compare.js"} <= names
        assert len(scripts) == len(names), "a module with two addresses would run twice"
    os.close(lock)
