"""Prices of the catalogue: every one has unit, Region, source, date and certainty."""

from __future__ import annotations

from datetime import date

import pytest

from cloudft import catalogue
from cloudft.catalogue import Model, Source, load_import_rules, load_instances, load_models
from cloudft.catalogue.prices import (
    CERTAINTY_TEXTS,
    PRICE_NAMES,
    UNITS,
    Prices,
    is_old,
    latest_day,
    merge_prices,
)
from cloudft.catalogue.stated_prices import ModelPrices
from cloudft.spec.model import PricesSpec

SOURCE = Source("docs", "https://example.com", "2026-11")
PRICED = [model for model in load_models() if model.prices]
ACTIVE = [m for m in load_models() if m.bedrock_id and m.lifecycle.state == "active"]


@pytest.mark.parametrize("model", PRICED, ids=lambda model: model.alias)
def test_a_price_has_a_source_a_date_and_a_certainty(model: Model) -> None:
    for prices in model.prices:
        assert prices.region or model.family == "cohere-command", "the page names no Region"
        for name, price in prices.by_name.items():
            assert name in UNITS
            assert price.source.url and latest_day(price.source.date)
            assert price.certainty in CERTAINTY_TEXTS and price.certainty not in ("list", "stated")
            assert min(price.usd if isinstance(price.usd, tuple) else (price.usd,)) > 0


def test_instances_and_custom_model_units_have_them_too() -> None:
    instances, rules = load_instances(), load_import_rules()
    assert set(instances.prices) == set(instances.by_name), "every type has a price"
    hourly = [price for row in instances.prices.values() for price in row.values()]
    for price in (*hourly, *rules.prices.values()):
        assert price.source is not None and latest_day(price.source.date)
        assert price.certainty in CERTAINTY_TEXTS
    assert {region for _, region in rules.prices} <= set(rules.regions)


@pytest.mark.parametrize("model", ACTIVE, ids=lambda model: model.alias)
def test_every_active_model_has_a_price_of_each_type_that_it_offers(model: Model) -> None:
    if not model.customization_types:
        return
    for region in model.regions:
        prices = model.prices_in(region)
        assert prices is not None and prices.usd("storage_per_month")
        for kind in model.customization_types:
            by_hour = kind == "REINFORCEMENT_FINE_TUNING"
            assert prices.usd("reinforcement_hour" if by_hour else "training_per_1k_tokens")
        if "provisioned" in model.serving:
            assert prices.usd("provisioned_unit_hour")
        if "on-demand" in model.serving:
            assert prices.pair("tuned_per_1k_tokens")


def test_a_price_is_of_its_region_and_an_unknown_one_is_none() -> None:
    nova = catalogue.find_model("nova-lite")
    assert nova.prices_in(None) == nova.prices_in("us-east-1")
    assert nova.prices_in("eu-west-1") is None
    titan = catalogue.find_model("titan-text-express")
    here, there = titan.prices_in("us-east-1"), titan.prices_in("us-west-2")
    assert here is not None and there is not None
    assert here.usd("provisioned_unit_hour") == 20.5
    assert there.usd("provisioned_unit_hour") is None, "the page is of US East alone"
    assert there.usd("training_per_1k_tokens") == 0.008


def test_units_of_imported_models_cost_more_in_frankfurt_and_are_unknown_in_ohio() -> None:
    minutes = {
        region: price.unit_minute if price else None
        for region in load_import_rules().regions
        for price in [catalogue.get_unit_prices("v1.0", region)]
    }
    assert minutes == {
        "us-east-1": 0.05718,
        "us-west-2": 0.05718,
        "eu-central-1": 0.07144,
        "us-east-2": None,
    }
    oss = catalogue.get_unit_prices("v2.0", "us-east-1")
    assert oss is not None and oss.unit_minute == 0.1433


def test_two_rows_of_one_price_are_refused() -> None:
    first = Prices.of({"storage_per_month": 1.95}, SOURCE, "one", "us-east-1")
    with pytest.raises(ValueError, match=r"storage_per_month.*us-east-1"):
        merge_prices([first, first])
    with pytest.raises(ValueError, match="'storage' is no price"):
        Prices.of({"storage": 1.95}, SOURCE)


def test_the_users_own_prices_have_the_same_names() -> None:
    own = {*PricesSpec.model_fields} - {"source", "date", "instance_hour"}
    home = {*ModelPrices.__struct_fields__} - {"source", "date"}
    assert own == home == set(PRICE_NAMES) == set(UNITS)


@pytest.mark.parametrize(
    ("text", "old"),
    [
        ("2025", False),  # it may be the last day of 2025
        ("2024", True),
        ("2025-11", False),
        ("2025-10", True),
        ("2025-11-30", False),
        ("2025-11-29", True),
        ("some day", True),
        ("", True),
    ],
)
def test_a_fact_is_old_after_a_year(text: str, old: bool) -> None:
    assert is_old(text, date(2026, 11, 30)) is old
