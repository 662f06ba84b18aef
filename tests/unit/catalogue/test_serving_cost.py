"""What serving costs a month: on demand, by provisioned units, by copies of an imported model."""

from __future__ import annotations

import pytest

from cloudft import catalogue
from cloudft.catalogue import load_import_rules
from cloudft.catalogue.prices import CERTAINTY_TEXTS, latest_day
from cloudft.catalogue.service_prices import KMS_KEY_MONTH, S3_GIGABYTE_MONTH, load_service_prices
from cloudft.catalogue.serving_cost import (
    WINDOWS_PER_MONTH,
    Traffic,
    count_copy_units,
    import_serving,
    import_unit_version,
    tuned_servings,
)


def test_every_service_price_has_a_source_a_date_and_a_certainty() -> None:
    prices = load_service_prices()
    assert set(prices) == {S3_GIGABYTE_MONTH, KMS_KEY_MONTH}
    for price in prices.values():
        assert price.usd > 0 and price.source.url and latest_day(price.source.date)
        assert price.certainty in CERTAINTY_TEXTS
    s3, key = prices[S3_GIGABYTE_MONTH], prices[KMS_KEY_MONTH]
    assert (s3.usd, key.usd) == (0.023, 1.0)
    assert s3.is_of("us-east-1") and not s3.is_of("eu-central-1") and key.is_of("eu-central-1")


def test_the_month_of_awss_own_example_and_its_break_even_points() -> None:
    # AWS ML blog, text to SQL with Nova Micro, 2026-04-16: 0.616 + 0.184 = 0.80 USD a month.
    nova = catalogue.find_model("nova-micro")
    ways = tuned_servings(nova, nova.prices_in("us-east-1"), Traffic(22_000, 800, 60))
    on_demand, *provisioned = ways
    assert on_demand.usd_per_month == pytest.approx(0.616 + 0.1848)
    assert [way.usd_per_month for way in provisioned] == pytest.approx(
        [60.5 * 730, 55.0 * 730, 30.25 * 730]
    )
    for way in provisioned:
        even = way.break_even_requests
        assert even is not None and way.usd_per_month is not None
        assert on_demand.usd_for(even) >= way.usd_for(even)  # type: ignore[operator]
        assert on_demand.usd_for(even - 1) < way.usd_for(even - 1)  # type: ignore[operator]


def test_a_model_without_on_demand_inference_has_no_break_even_point() -> None:
    llama = catalogue.find_model("llama-3.1-8b")
    ways = tuned_servings(llama, llama.prices_in("us-west-2"), Traffic(1000, 10, 10))
    assert [way.kind for way in ways] == ["provisioned"] * 3
    assert all(way.break_even_requests is None and way.usd_per_month for way in ways)
    unknown = tuned_servings(llama, None, Traffic(1000, 10, 10))
    assert [way.usd_per_month for way in unknown] == [None] * 3


@pytest.mark.parametrize(
    ("parameters", "low", "high"),
    [
        (135_000_000, 1, 2),
        (8_000_000_000, 2, 2),
        (14_000_000_000, 2, 8),
        (70_000_000_000, 8, 8),
        (120_000_000_000, 8, None),
        (None, 1, None),
    ],
)
def test_units_between_the_known_examples_are_bounded_or_unknown(
    parameters: int | None, low: int, high: int | None
) -> None:
    units = count_copy_units(parameters)
    assert (units.low, units.high) == (low, high)
    assert units.reason


@pytest.mark.parametrize(
    ("requests", "windows"),
    [(0, 0), (1, 1), (100, 100), (8760, 8760), (10**9, WINDOWS_PER_MONTH)],
)
def test_requests_of_an_imported_model_pay_windows_of_five_minutes(
    requests: int, windows: int
) -> None:
    traffic = Traffic(requests, 10, 10)
    serving, storage, _ = import_serving(8 * 10**9, "v1.0", "us-east-1", traffic)
    window = 2 * 0.05718 * 5
    assert serving.usd_per_month == pytest.approx(windows * window)
    assert serving.lowest == pytest.approx(window if requests else 0.0) and serving.at_most
    assert serving.usd_for(requests) == pytest.approx(windows * window)
    assert storage == pytest.approx(2 * 1.95)


def test_what_an_imported_model_costs_is_unknown_where_units_or_prices_are() -> None:
    traffic = Traffic(100, 10, 10)
    assert WINDOWS_PER_MONTH == 8760
    large, storage, _ = import_serving(120 * 10**9, "v1.0", "us-east-1", traffic)
    assert large.usd_per_month is None and storage is None and "70B has 8" in large.unknown
    elsewhere, _, _ = import_serving(8 * 10**9, "v1.0", "us-east-2", traffic)
    assert elsewhere.usd_per_month is None and "no price" in elsewhere.unknown
    frankfurt, _, _ = import_serving(8 * 10**9, "v1.0", "eu-central-1", traffic)
    assert frankfurt.usd_per_month == pytest.approx(100 * 2 * 0.07144 * 5)
    assert {row.source.key for row in load_import_rules().copy_units} == {"cmu"}
    assert import_unit_version(catalogue.find_model("gpt-oss-20b")) == "v2.0"
    assert import_unit_version(catalogue.find_model("smollm2-135m")) == "v1.0"
