"""What jobs cost against their budgets, and what ends by itself."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
from job_records import make_record

from cloudft.account.expiry import list_model_expiries, list_resource_expiries
from cloudft.backends.resources import CloudResource
from cloudft.jobs.budgets import cost_of, sum_costs
from cloudft.storage.store import JobRecord, Store
from cloudft.types import JobState, StatusDetails

NOW = datetime(2026, 6, 1, tzinfo=timezone.utc)


def record(tmp_path: Path, usd: float | None, budget: float | None, **more: Any) -> JobRecord:
    spec = {"name": "a"} if budget is None else {"name": "a", "budget_usd": budget}
    estimate = {"usd": {"training": usd}, **more}
    return make_record(Store(tmp_path), "a-00000000", spec=spec, estimate=estimate)


def ended(usd: float) -> JobState:
    details = StatusDetails()
    return JobState("a-00000000", "Completed", details, "2026-01-01", summary={"usd": usd})


def test_what_was_billed_wins_over_the_estimate(tmp_path: Path) -> None:
    job = record(tmp_path, 4.0, 5.0)
    before, after = cost_of(job, None), cost_of(job, ended(6.0))
    assert (before.usd, before.basis, before.share, before.status) == (4.0, "estimated", 0.8, None)
    assert (after.usd, after.basis, after.status) == (6.0, "billed", "Completed")
    assert after.share == pytest.approx(1.2)


@pytest.mark.parametrize(
    ("usd", "budget", "share"), [(None, 5.0, None), (4.0, None, None), (0.0, 0.0, 0), (1.0, 0.0, 1)]
)
def test_a_share_is_known_when_cost_and_budget_are(
    tmp_path: Path, usd: float | None, budget: float | None, share: float | None
) -> None:
    assert cost_of(record(tmp_path, usd, budget), None).share == share


def test_sums_keep_bills_estimates_and_the_unknown_apart(tmp_path: Path) -> None:
    jobs = [record(tmp_path, usd, None) for usd in (1.0, 2.0, None)]
    costs = [cost_of(jobs[0], ended(0.5)), *(cost_of(job, None) for job in jobs[1:])]
    bound = cost_of(record(tmp_path, 8.0, None, atMost=True), None)
    assert bound.basis == "at most"
    sums = sum_costs([*costs, bound])
    assert (sums.billed, sums.estimated, sums.unknown) == (0.5, 10.0, 1)


def resource(name: str, **changes: Any) -> CloudResource:
    usd = {"perHour": 1.0, "perMonth": 720.0}
    return CloudResource("deployment", name, name, "Active", "2026-01-01", usd, **changes)


def test_resources_end_by_their_tag_or_their_commitment() -> None:
    found = list_resource_expiries(
        [
            resource("later", expires_at="2026-07-01T00:00:00+00:00"),
            resource("over", expires_at="2026-05-01T00:00:00"),
            resource("bought", commitment="OneMonth", committed_until="2026-06-15T00:00:00Z"),
            resource("never", expires_at="not a time"),
        ],
        NOW,
    )
    assert [(one.what, one.is_over) for one in found] == [
        ("deployment over", True),
        ("deployment bought", False),
        ("deployment later", False),
    ]


def test_base_models_of_jobs_end_as_the_catalogue_says(tmp_path: Path) -> None:
    store = Store(tmp_path)
    records = [
        make_record(store, f"a-0000000{n}", base_model=name)
        for n, name in enumerate(("titan-text-lite", "titan-text-lite", "smollm2-135m", "/mine"))
    ]
    found = list_model_expiries(records, NOW)
    assert [one.at for one in found] == ["2025-01-31", "2025-08-15"]
    assert all(one.is_over and "base of 2 jobs" in one.effect and one.source for one in found)
    assert not any(
        one.is_over for one in list_model_expiries(records, datetime(2025, 1, 1, tzinfo=NOW.tzinfo))
    )
