"""Trials of sweeps and jobs of learning curves are not among the jobs that people choose from."""

from __future__ import annotations

from pathlib import Path

import pytest
from sample_pages import make_evaluation
from test_job_pages import get
from workbench_jobs import make_local_job, write_ending

from cloudft.evaluate.results import save_evaluation
from cloudft.storage.artifacts import TRAINING_CSV
from cloudft.storage.home import Home
from cloudft.storage.side_jobs import PARTS_FOLDER
from cloudft.workbench.workbench import Workbench

TRIAL = "tuned-sweep-00000001-000000aa"
PART = "router-1of8-000000bb"
NEWEST = [f"job{n:02}-000000{n:02x}" for n in range(12)]
"""Ids whose order is not that of their creation: the last is the oldest."""


@pytest.fixture
def workbench(tmp_path: Path) -> Workbench:
    home = Home(tmp_path)
    (home.sweeps / "tuned-00000001").mkdir(parents=True)
    tags = {"sweep": "tuned-00000001", "trial": "1"}
    manifest = {
        "sha256": "a" * 64,
        "files": {"train": {"name": "train.jsonl", "sha256": "b" * 64, "records": 3, "tokens": 9}},
    }
    dates = {job: f"2026-02-{20 - n:02}" for n, job in enumerate(NEWEST)}
    dates |= {"router-000000cc": "2026-01-01", PART: "2026-03-01", TRIAL: "2026-03-02"}
    for job, date in dates.items():
        record = make_local_job(
            home,
            job,
            created_at=f"{date}T00:00:00.000+00:00",
            tags=tags if job == TRIAL else {},
            manifest=manifest,
            name=job.rpartition("-")[0],
        )
        write_ending(record, "Completed")
        curve = record.folder / "artifacts" / TRAINING_CSV
        curve.parent.mkdir(parents=True)
        curve.touch()
        evaluation = make_evaluation(records=4, labels=2)
        save_evaluation(record.folder, {**evaluation, "version": 1, "createdAt": record.created_at})
        if job.startswith("router-00"):
            (record.folder / PARTS_FOLDER / "1of8").mkdir(parents=True)
    return Workbench(home)


def test_the_last_job_is_no_side_job(workbench: Workbench) -> None:
    assert workbench.store.find_by_reference("-").id == NEWEST[0]
    assert workbench.store.find_by_reference("tuned-sweep").id == TRIAL


@pytest.mark.parametrize("path", ["", "compare", "data", "label", "playground", "review"])
def test_pages_offer_the_newest_jobs_first_and_no_side_jobs(
    workbench: Workbench, path: str
) -> None:
    status, page = get(workbench, f"/{path}")
    assert status == 200
    assert TRIAL not in page and PART not in page
    places = [page.index(job) for job in NEWEST]
    assert places == sorted(places)


def test_a_trial_that_was_chosen_is_shown_as_chosen(workbench: Workbench) -> None:
    _, page = get(workbench, f"/playground?job={TRIAL}")
    assert f'<option value="{TRIAL}" selected>' in page
    _, page = get(workbench, f"/compare?job={TRIAL}")
    assert TRIAL in page
