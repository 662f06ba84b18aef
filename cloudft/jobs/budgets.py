"""What jobs cost against the budgets of their job files, from what this machine knows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from cloudft.jobs.lifecycle import Job
from cloudft.storage.store import JobRecord
from cloudft.types import JobState, StatusDetails

CostBasis = Literal["billed", "estimated", "at most", "unknown"]


@dataclass(frozen=True)
class JobCost:
    """The training cost of a job in USD, None where no price is known; and its budget."""

    job: str
    status: str | None
    usd: float | None
    basis: CostBasis
    budget: float | None = None

    @property
    def share(self) -> float | None:
        """Return the part of the budget that is used, 1 for all of it; None where unknown."""
        if self.usd is None or self.budget is None:
            return None
        return self.usd / self.budget if self.budget else float(self.usd > 0)


@dataclass(frozen=True)
class CostSums:
    """The sums of many jobs. `unknown` counts the jobs without a known price."""

    billed: float
    estimated: float
    unknown: int


def cost_of(record: JobRecord, state: JobState | None) -> JobCost:
    """Return what a job costs: billed where its backend said so, else as it was estimated."""
    known = state or JobState(record.id, "InProgress", StatusDetails(), record.created_at)
    cost = Job(record, known).to_json()["cost"]
    basis: CostBasis = "estimated" if cost["estimated"] else "billed"
    if cost["usd"] is None:
        basis = "unknown"
    elif cost.get("atMost"):
        basis = "at most"
    budget = record.spec.get("budget_usd")
    return JobCost(
        record.id,
        None if state is None else state.status,
        cost["usd"],
        basis,
        None if budget is None else float(budget),
    )


def sum_costs(costs: Iterable[JobCost]) -> CostSums:
    """Add up what jobs cost, billed and estimated apart."""
    found = list(costs)
    return CostSums(
        sum(one.usd or 0.0 for one in found if one.basis == "billed"),
        sum(one.usd or 0.0 for one in found if one.basis in ("estimated", "at most")),
        sum(one.usd is None for one in found),
    )
