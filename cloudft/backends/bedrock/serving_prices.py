"""Prices of serving: per hour, per month, and for the term of a commitment."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Mapping
from datetime import datetime, timezone

from cloudft.backends.resources import Commitment, ServingPlan
from cloudft.catalogue import Prices, cost
from cloudft.catalogue.prices import COMMITMENTS, AmountName
from cloudft.errors import QuotaExceeded

COMMITMENT_MONTHS = {"OneMonth": 1, "SixMonths": 6}
"""Months of each `commitmentDuration` of CreateProvisionedModelThroughput."""
SUPPORT_CENTER = "https://console.aws.amazon.com/support/home#/case/create"


def unit_hour_name(commitment: str | None) -> AmountName:
    """Return the name of the hourly price of a model unit under a commitment."""
    return COMMITMENTS.get(commitment or "", "provisioned_unit_hour")


def usd_of_serving(
    prices: Prices | None, kind: str, units: int, commitment: str | None
) -> dict[str, float | None]:
    """Return the price per hour and month of a deployment or of model units."""
    hour: float | None = 0.0
    if kind != "on-demand":
        unit = prices.usd(unit_hour_name(commitment)) if prices else None
        hour = None if unit is None else unit * units
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    return {"perHour": hour, "perMonth": month}


def plan_commitment(
    duration: str, usd: Mapping[str, float | None], now: datetime | None = None
) -> Commitment:
    """Return the term of a commitment that is bought now, and its whole price.

    Units are billed by the hour, so the term costs what its days have: a month of 31 days is more
    than the 730 hours of a mean month.
    """
    start, hour_usd = now or datetime.now(timezone.utc), usd["perHour"]
    months = COMMITMENT_MONTHS[duration]
    ends = _add_months(start, months)
    hours = (ends - start).total_seconds() / 3600
    total = None if hour_usd is None else hour_usd * hours
    return Commitment(duration, months, total, ends.isoformat(timespec="seconds"))


def _add_months(start: datetime, months: int) -> datetime:
    """Return the same day some months later, or the last day of a shorter month."""
    year, month = divmod(start.month - 1 + months, 12)
    year, month = start.year + year, month + 1
    return start.replace(year=year, month=month, day=min(start.day, monthrange(year, month)[1]))


def quota_error(plan: ServingPlan, error: QuotaExceeded) -> QuotaExceeded:
    """Return the error of a quota with the fix for what was to be created."""
    if plan.kind == "on-demand":
        fix = "`cloudft ps` lists the deployments; remove one, or raise the quota in Service Quotas"
    elif plan.commitment is not None:
        # Source: botocore, `modelUnits` of CreateProvisionedModelThroughput.
        fix = (
            "an account has no model units with a commitment until AWS Support grants them: open a"
            f" case at {SUPPORT_CENTER}, or remove --commitment"
        )
    else:
        fix = (
            "use fewer --units, `cloudft ps` lists the throughputs that use the quota, or raise it"
            " in Service Quotas (Model units)"
        )
    return QuotaExceeded(error.message, fix=f"{fix}.")
