"""The pages of sweeps in a real browser, and where the lines of parallel coordinates are."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from workbench_server import (
    SIZES,
    RunningWorkbench,
    is_wider_than_window,
    open_browser,
    open_page,
    running_workbench,
    serious_violations,
)

from cloudft.sweep import result as results
from cloudft.sweep.folder import SweepFolder
from cloudft.sweep.importance import Importance, ParameterImportance
from cloudft.sweep.pruning import Point
from cloudft.sweep.records import TrialRecord
from cloudft.sweep.result import SweepResult
from cloudft.sweep.space import SpaceParameter
from cloudft.workbench.parallel_coordinates import draw_parallel_coordinates

if TYPE_CHECKING:
    from playwright.sync_api import Browser

RATE = SpaceParameter(
    "learningRate", ("hyperparameters", "learningRate"), "float", 1e-5, 1e-2, log=True
)
DROPOUT = SpaceParameter("local.lora.dropout", ("local", "lora", "dropout"), "float", 0.0, 0.2)
RANK = SpaceParameter("local.lora.r", ("local", "lora", "r"), "int", values=(4, 8, 16))
SPACE = (RATE, DROPOUT, RANK)
NAME = "router-0123abcd"


def make_result(trials: int = 24) -> SweepResult:
    """Return a sweep of which each third trial was stopped early."""
    draw, records = random.Random(1), []
    for number in range(trials):
        rate = 10 ** draw.uniform(-5, -2)
        values = {"learningRate": rate, "local.lora.dropout": draw.uniform(0, 0.2)}
        values["local.lora.r"] = draw.choice((4, 8, 16))
        loss = 1 + (number % 7) * 0.1 + rate
        one = TrialRecord(number, dict(values), 7, "complete", loss, f"router-{number:08x}")
        one.points, one.seconds = [Point(80, 0.5, loss + 0.2), Point(160, 1.0, loss)], 12.5
        if number % 3 == 2:
            one.outcome, one.score, one.points = "pruned", None, one.points[:1]
        records.append(one)
    best, own = results.rank_trials(records)[0], records[0]
    return SweepResult(
        version=1,
        id=NAME,
        name="router <b>&amp;</b>",
        status="finished",
        created_at="2026-01-02T03:04:05.678+00:00",
        updated_at="2026-01-02T03:04:05.678+00:00",
        job_file=None,
        metric="validation loss",
        seed=7,
        planned=trials,
        budget_minutes=None,
        space=results.describe_space(SPACE),
        trials=records,
        own=own.number,
        best=best.number,
        repeats=[],
        repeated=[],
        verdict=results.judge(best, own, []),
        edges=results.find_edges(SPACE, best),
        importance=Importance("fANOVA", 16, 12, [ParameterImportance("learningRate", 0.8)]),
        pruning=results.summarize_pruning(records),
        seconds=300.0,
        changes={"hyperparameters.learningRate": best.values["learningRate"]},
    )


def write_sweep(home: Path, result: SweepResult) -> SweepFolder:
    folder = home / "sweeps" / result.id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps(result.to_json()))
    return SweepFolder(folder)


@pytest.fixture(scope="module")
def workbench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningWorkbench]:
    home = tmp_path_factory.mktemp("home")
    write_sweep(home, make_result())
    with running_workbench(home) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with open_browser(tmp_path_factory.mktemp("browser")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_the_pages_fit_and_are_accessible(
    workbench: RunningWorkbench, browser: Browser, tmp_path: Path, size: str, dark: bool
) -> None:
    with open_page(browser, size=size, dark=dark) as page:
        page.goto(f"{workbench.url}sweeps")
        assert serious_violations(page) == [] and not is_wider_than_window(page)
        page.click(f"text={NAME}")
        page.wait_for_selector(".brushes:not([hidden])")
        page.screenshot(path=str(tmp_path / f"{size}-{dark}.png"), full_page=True)
        assert serious_violations(page) == []
        assert not is_wider_than_window(page)


def test_ranges_leave_out_trials_by_keyboard(workbench: RunningWorkbench, browser: Browser) -> None:
    with open_page(browser) as page:
        page.goto(f"{workbench.url}sweeps/{NAME}")
        assert page.inner_text(".brushes output") == "24 of 24 trials"
        page.focus('input[data-axis="2"][data-end="low"]')
        page.keyboard.press("End")
        with_16 = sum(one.values["local.lora.r"] == 16 for one in make_result().trials)
        assert page.inner_text(".brushes output") == f"{with_16} of 24 trials"
        assert page.locator("polyline.out").count() == 24 - with_16
        assert page.locator("tr.out").count() == 24 - with_16
        page.click("text=Show all")
        page.wait_for_function("document.querySelectorAll('polyline.out').length === 0")


def test_a_page_follows_a_running_sweep(browser: Browser, tmp_path: Path) -> None:
    home = tmp_path / "home"
    folder = write_sweep(home, make_result(6))
    with running_workbench(home) as running, folder.lock(), open_page(browser) as page:
        page.goto(f"{running.url}sweeps/{NAME}")
        assert page.locator("polyline[data-trial]").count() == 6
        write_sweep(home, make_result(9))
        page.wait_for_selector('polyline[data-trial="8"]')
        assert page.locator("tr[data-trial]").count() == 9


def test_without_scripts_all_of_it_is_there(workbench: RunningWorkbench) -> None:
    status, page = workbench.get(f"sweeps/{NAME}")
    assert status == 200 and page.count("<polyline") == 24 and page.count("<tr data-trial") == 24
    assert "fANOVA over 16 complete trials" in page and "<b>" not in page
    assert workbench.get("sweeps/none")[0] == 404


def test_lines_lie_on_their_parameters_scale() -> None:
    result = make_result()
    result.trials[0].values = {"learningRate": 1e-5, "local.lora.dropout": 0.1, "local.lora.r": 16}
    drawing = draw_parallel_coordinates(result)
    [line] = [one for one in drawing.lines if one.number == 0]
    assert line.at[:3] == (0.0, 50.0, 100.0)
    assert [axis.name for axis in drawing.axes][-1] == "validation loss"
    assert all("." not in axis.label for axis in drawing.axes), "long names would overlap"
    assert "best" in next(one for one in drawing.lines if one.number == result.best).css
    stopped = {one.number for one in drawing.lines if "stopped" in one.css}
    assert stopped == {one.number for one in result.trials if one.outcome == "pruned"}


def test_points_that_were_drawn_twice_or_run_are_no_done_trials() -> None:
    result = make_result()
    done, first = result.trials_done, result.trials[0]
    same = msgspec.structs.replace(first, number=90, same_as=first.number)
    running = msgspec.structs.replace(first, number=91, outcome="running")
    more = msgspec.structs.replace(result, trials=[*result.trials, same, running])
    assert more.trials_done == done
