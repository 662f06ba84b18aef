"""Live prices: taken where exactly one product is the model's, else the catalogue's stand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock import inventory, price_list
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.catalogue import UnitPrices, cost
from cloudft.errors import PermissionDenied
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import DataVolume

NOVA = catalogue.find_model("nova-micro")


def product(usage: str, usd: str, unit: str) -> str:
    dimension = {"unit": unit, "pricePerUnit": {"USD": usd}}
    return json.dumps(
        {
            "product": {"attributes": {"regionCode": "us-east-1", "usagetype": usage}},
            "terms": {"OnDemand": {"a": {"priceDimensions": {"b": dimension}}}},
        }
    )


LISTED = [
    product("USE1-NovaMicro-Customization-Training", "0.0020000000", "1K tokens"),
    product("USE1-NovaMicro-Customization-Storage", "2.5", "Model/month"),
    product("USE1-NovaMicro-ProvisionedThroughput-NoCommit-ModelUnits", "30", "hour"),
    product("USE1-NovaMicro-ProvisionedThroughput-1month-ModelUnits", "20", "hour"),
    product("USE1-NovaMicro-input-tokens", "0.00003", "1K tokens"),
    product("USE1-NovaPro-Customization-Training", "0.9", "1K tokens"),
]


def answering(monkeypatch: pytest.MonkeyPatch, *pages: list[str] | Exception) -> list[Any]:
    """Let the price list return these pages; return the list of its requests."""
    requests: list[Any] = []

    def once(aws: Aws, what: str, service: str, operation: str, **given: Any) -> Mapping[str, Any]:
        assert (service, operation, aws.location.region) == ("pricing", "get_products", "us-east-1")
        requests.append(given)
        page = pages[int(given.get("NextToken", 0))]
        if isinstance(page, Exception):
            raise page
        more = len(requests) < len(pages)
        return {"PriceList": page} | ({"NextToken": str(len(requests))} if more else {})

    monkeypatch.setattr(Aws, "call_without_retry", once)
    return requests


def test_the_models_own_products_are_read_from_all_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    requests = answering(monkeypatch, LISTED[:1], LISTED[1:])
    found = price_list.fetch_prices(Aws(AwsLocation()), [NOVA], "us-west-2")
    assert list(found) == ["nova-micro"] and len(requests) == 2
    assert requests[0]["Filters"][0]["Value"] == "us-west-2"
    amounts = {name: price.usd for name, price in found["nova-micro"].by_name.items()}
    assert amounts == {
        "training_per_1k_tokens": 0.002,
        "storage_per_month": 2.5,
        "provisioned_unit_hour": 30,
        "provisioned_unit_hour_one_month": 20,
    }


@pytest.mark.parametrize(
    "listed",
    [
        [],
        LISTED[4:],
        [LISTED[0], product("USE1-NovaMicro-Customization-Training", "0.003", "1K tokens")],
        [product("USE1-NovaMicro-Customization-Training", "2", "1M tokens")],
    ],
)
def test_nothing_is_guessed(monkeypatch: pytest.MonkeyPatch, listed: list[str]) -> None:
    answering(monkeypatch, listed)
    assert price_list.fetch_prices(Aws(AwsLocation()), [NOVA], "us-east-1") == {}


def test_a_quote_takes_the_live_prices_or_stays_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "some")
    path = tmp_path / "cloudft.yaml"
    path.write_text("{name: quoted, base_model: nova-micro, data: {train: train.jsonl}}")
    job = load_job(path, flags={"bedrock.region": "us-east-1"})
    backend = BedrockBackend(Home(tmp_path / "home")).for_job(job)
    before = backend.estimate(job, {"train": DataVolume(10, 60_000, 10_000)})
    assert before.usd["training"] == pytest.approx(0.02)
    answering(monkeypatch, LISTED)
    after = backend.with_current_prices(job, before)
    assert after.usd["training"] == pytest.approx(0.04)
    assert after.usd["servingPerHour"] == 0.0, "on demand costs nothing while it is idle"
    assert "Price List API, us-east-1" in after.price_source
    [part] = after.parts
    assert part.price is not None and part.price.certainty == "list"
    assert part.not_used is not None and part.not_used.usd == 0.001, "the catalogue's is shown too"
    assert part.not_used.date == "2026-04-16"
    answering(monkeypatch, PermissionDenied("no", fix="ask"))
    assert backend.with_current_prices(job, before) == before
    elsewhere = load_job(path, flags={"bedrock.endpoint_url": "http://127.0.0.1:9"})
    assert backend.for_job(elsewhere).with_current_prices(elsewhere, before) == before


def test_an_imported_models_copies_are_billed_by_whole_windows() -> None:
    assert cost.imported_model_usd(0.0, 1, 2, 0.05) == 0.0
    assert cost.imported_model_usd(0.1, 1, 2, 0.05) == pytest.approx(0.5)
    assert cost.imported_model_usd(12.0, 3, 2, 0.05) == pytest.approx(3 * 2 * 0.05 * 15)


def test_how_a_copy_is_billed_has_its_source() -> None:
    units = {"customModelUnitsPerModelCopy": 2, "customModelUnitsVersion": "v1.0"}
    basis = inventory._copy_price(units, None)
    assert "2 x custom model unit v1.0 in windows of 5 minutes, no price is known" in basis
    assert "import-model-calculate-cost.html, 2026-11-27" in basis
    assert "0.05 USD a unit and minute" in inventory._copy_price(units, UnitPrices(0.05))


def test_asking_costs_tokens_of_both_models_where_their_prices_are_known() -> None:
    nova = catalogue.find_model("nova-2-lite").prices_in("us-east-1")
    usd = cost.inference_usd(nova, 10_000, 2_000)
    assert usd == pytest.approx(10 * (0.00033 + 0.0003) + 2 * (0.00275 + 0.0025))
    # A tuned Llama 3.1 8B is served by provisioned throughput alone.
    llama = catalogue.find_model("llama-3.1-8b").prices_in("us-west-2")
    assert cost.inference_usd(llama, 10_000, 2_000) is None
