"""Measure the workbench: its first page, the delay of a point, and what open pages cost a trainer.

    python benchmarks/workbench.py

The first page is measured right after the start and again, with 5 jobs, and with 1,000 jobs of
which ten have a million points each (2 GB of temporary files). The delay is from the line on disk
to the drawn point in a headless browser. The trainer's steps a second are counted in turns, with
three pages open (the table, and the job twice) and with none, in one run of the tests' smallest
model: more steps a second than any real model takes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from smallest import TESTS, build_parser, build_tiny_model

sys.path.insert(0, str(TESTS))

from tiny import pairs, write_job_dir
from workbench_jobs import (
    append_lines,
    falling_curve,
    make_local_job,
    running_trainer,
    train_line,
    write_ending,
    write_state,
)
from workbench_server import RunningWorkbench, open_browser, running_workbench

from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

TRAINER_ID = "trained-0000000a"
DESCRIPTION = "figure[data-measure=loss] .plot svg desc"
"""Where a chart names its last point."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured. `jobs` have `points` together, in `long` curves of equal length."""

    jobs: int = 1000
    points: int = 10_000_000
    long: int = 10
    requests: int = 9
    delays: int = 20
    turns: int = 8
    turn_s: float = 12.0
    settle_s: float = 3.0


SMALLEST = Sizes(12, 4000, 2, requests=2, delays=2, turns=1, turn_s=1.0, settle_s=0.5)


def make_jobs(home: Home, sizes: Sizes) -> JobRecord:
    """Write the jobs, the long ones first; return one of those."""
    first = make_local_job(home, "long-00000000", falling_curve(sizes.points // sizes.long))
    for number in range(1, sizes.jobs):
        is_long = number < sizes.long
        record = make_local_job(
            home, f"job-{number:08x}", "" if is_long else falling_curve(20, seed=number)
        )
        if is_long:
            shutil.copyfile(first.folder / "metrics.jsonl", record.folder / "metrics.jsonl")
        write_state(record, 20, 20)
        write_ending(record, "Stopped")
    return first


def seconds_for(workbench: RunningWorkbench, path: str) -> float:
    """Return how long a page takes until its last byte."""
    begin = time.perf_counter()
    status, _ = workbench.get(path)
    assert status == 200, path
    return time.perf_counter() - begin


def measure_pages(name: str, home: Home, long: JobRecord | None, sizes: Sizes) -> None:
    """Print rows: the first page after the start, the same again, and a long job's page."""
    with running_workbench(home.path) as workbench:
        print_row(f"first page, {name}, right after the start", seconds_for(workbench, ""))
        again = [seconds_for(workbench, "") for _ in range(sizes.requests)]
        print_row(f"first page, {name}, median of {len(again)}", statistics.median(again))
        sorted_by_loss = seconds_for(workbench, "?sort=loss")
        print_row(f"sorted by loss, {name}, first time", sorted_by_loss)
        if long is None:
            return
        count = sizes.points // sizes.long
        begin = time.perf_counter()
        print_row(f"page of a job with {count:,} points", seconds_for(workbench, f"jobs/{long.id}"))
        chart = f"jobs/{long.id}/chart?measure=loss"
        while json.loads(workbench.get(chart)[1])["partial"]:
            time.sleep(0.1)
        print_row("until its curve is read whole", time.perf_counter() - begin)
        print_row("then a zoom", seconds_for(workbench, f"{chart}&from=1000&to=2000"))


def measure_delays(home: Home, browser: Browser, sizes: Sizes) -> None:
    """Print rows: the delays between a line on disk and the drawn point."""
    record = make_local_job(home, "live-0000000b", "".join(train_line(n, 2.0) for n in range(50)))
    delays = []
    with running_trainer(record), running_workbench(home.path) as workbench:
        page = browser.new_page()
        page.goto(f"{workbench.url}jobs/{record.id}")
        wait_for_point(page, 50)
        time.sleep(1)
        for step in range(50, 50 + sizes.delays):
            time.sleep(0.37)  # at another time of each period
            begin = time.perf_counter()
            append_lines(record, train_line(step, 2.0))
            wait_for_point(page, step + 1)
            delays.append(time.perf_counter() - begin)
        page.close()
    print_row(f"delay of a point, median of {len(delays)}", statistics.median(delays))
    print_row("delay of a point, longest", max(delays))


def wait_for_point(page: Page, step: int) -> None:
    """Wait until a step is the last one of the drawn chart."""
    page.locator(DESCRIPTION, has_text=f"at {step}").wait_for(state="attached")


@contextlib.contextmanager
def training(home: Home, folder: Path) -> Iterator[JobRecord]:
    """Train the smallest model for as long as the block runs."""
    record = make_local_job(home, TRAINER_ID)
    request = json.loads((record.folder / "job.json").read_text("utf-8"))
    write_job_dir(record.folder, build_tiny_model(folder), {"train": pairs(64)}, epochCount=20_000)
    trained = json.loads((record.folder / "job.json").read_text("utf-8"))
    (record.folder / "job.json").write_text(json.dumps({**request, **trained}), "utf-8")
    log = (record.folder / "trainer.log").open("ab")
    process = subprocess.Popen(
        [sys.executable, "-m", "local_backend", str(record.folder)],
        stdout=log,
        stderr=log,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        while steps_done(record) < 20:
            assert process.poll() is None, (record.folder / "trainer.log").read_text("utf-8")
            time.sleep(0.2)
        yield record
    finally:
        (record.folder / "stop").touch()
        process.wait(60)
        log.close()


def steps_done(record: JobRecord) -> int:
    """Return how many lines the curve has."""
    return (record.folder / "metrics.jsonl").read_bytes().count(b"\n")


def steps_per_second(record: JobRecord, sizes: Sizes) -> float:
    """Return the trainer's speed during one turn, after a moment to settle."""
    time.sleep(sizes.settle_s)
    before, begin = steps_done(record), time.perf_counter()
    time.sleep(sizes.turn_s)
    seconds = time.perf_counter() - begin
    return (steps_done(record) - before) / seconds


def measure_trainer(home: Home, folder: Path, browser: Browser, sizes: Sizes) -> None:
    """Print rows: the trainer's speed with no page open and with three, in turns."""
    alone, watched = [], []
    with training(home, folder) as record, running_workbench(home.path) as workbench:
        for _ in range(sizes.turns):
            alone.append(steps_per_second(record, sizes))
            pages = open_pages(browser, workbench, record)
            watched.append(steps_per_second(record, sizes))
            for page in pages:
                page.close()
    ratios = [b / a for a, b in zip(alone, watched, strict=True)]
    print(
        f"| trainer alone, median of {len(alone)} turns | {statistics.median(alone):.1f} steps/s |"
    )
    print(f"| with three pages open | {statistics.median(watched):.1f} steps/s |")
    print(f"| lost, median of the turns | {100 * (1 - statistics.median(ratios)):.1f} % |")


def open_pages(browser: Browser, workbench: RunningWorkbench, record: JobRecord) -> list[Page]:
    """Open the table, and the page of the running job twice, each in a browser window."""
    pages = [browser.new_context().new_page() for _ in range(3)]
    for page, path in zip(pages, ("", f"jobs/{record.id}", f"jobs/{record.id}"), strict=True):
        page.goto(workbench.url + path)
    return pages


def print_row(what: str, seconds: float) -> None:
    """Print one row of a Markdown table."""
    print(f"| {what} | {1000 * seconds:,.0f} ms |", flush=True)


def main() -> None:
    """Print a Markdown table."""
    sizes = SMALLEST if build_parser(__doc__).parse_args().smallest else Sizes()
    print("| what | figure |\n| --- | --- |")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        few = Home(folder / "few")
        for number in range(5):
            write_ending(make_local_job(few, f"job-{number:08x}", falling_curve(500)), "Stopped")
        measure_pages("5 jobs", few, None, sizes)
        many = Home(folder / "many")
        long = make_jobs(many, sizes)
        measure_pages(f"{sizes.jobs:,} jobs, {sizes.points:,} points", many, long, sizes)
        shutil.rmtree(many.path)
        with open_browser(folder / "browser") as browser:
            measure_delays(few, browser, sizes)
            measure_trainer(few, folder / "model", browser, sizes)


if __name__ == "__main__":
    main()
