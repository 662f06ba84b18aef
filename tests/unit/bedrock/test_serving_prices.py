"""What a commitment costs: by the hours that its months have."""

from __future__ import annotations

from datetime import datetime, timezone

import pytest

from cloudft.backends.bedrock import serving_prices


@pytest.mark.parametrize(
    ("start", "duration", "days", "ends"),
    [
        ((2026, 12, 1), "OneMonth", 31, "2027-01-01"),
        ((2027, 2, 1), "OneMonth", 28, "2027-03-01"),
        ((2027, 1, 31), "OneMonth", 28, "2027-02-28"),
        ((2026, 8, 31), "SixMonths", 181, "2027-02-28"),
    ],
)
def test_a_term_costs_every_hour_until_its_end(
    start: tuple[int, int, int], duration: str, days: int, ends: str
) -> None:
    usd = {"perHour": 55.0, "perMonth": 55.0 * 730}
    begun = datetime(*start, tzinfo=timezone.utc)
    term = serving_prices.plan_commitment(duration, usd, begun)
    assert term.usd == pytest.approx(55 * 24 * days) and term.ends_at[:10] == ends


def test_a_term_of_an_unknown_price_costs_an_unknown_amount() -> None:
    usd = {"perHour": None, "perMonth": None}
    assert serving_prices.plan_commitment("OneMonth", usd).usd is None
