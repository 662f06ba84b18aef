"""Prices as AWS lists them now: the Price List Query API.

A price is taken only where exactly one product of the Region is that model's; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from cloudft.aws.client import Aws
from cloudft.catalogue import Model, Prices, Source

PRICE_LIST_REGION = "us-east-1"
"""Where the Price List answers (AWS Billing user guide, "Price List Query API endpoints")."""
USAGE_TYPES = {
    "training_per_1k_tokens": ("Customization-Training", re.compile(r"1K tokens", re.I)),
    "storage_per_month": ("Customization-Storage", re.compile(r".*")),
    "provisioned_unit_hour": (
        "ProvisionedThroughput-NoCommit-ModelUnits",
        re.compile(r"h(ou)?rs?", re.I),
    ),
}
"""End of the usage type, and the unit that the price must be in."""


def fetch_prices(aws: Aws, model: Model, region: str) -> Prices | None:
    """The model's prices in that Region; None when the list has none. Raises AwsRefused."""
    if model.price_list is None:
        return None
    found: dict[str, set[float]] = {name: set() for name in USAGE_TYPES}
    for product in _list_products(Aws(replace(aws.location, region=PRICE_LIST_REGION)), region):
        usage = product["product"]["attributes"].get("usagetype", "")
        for name, (suffix, unit) in USAGE_TYPES.items():
            if re.fullmatch(rf"([A-Z0-9]+-)?{re.escape(model.price_list)}-{suffix}", usage):
                found[name] |= set(_unit_prices(product, unit))
    prices: dict[str, Any] = {
        name: amounts.pop() for name, amounts in found.items() if len(amounts) == 1
    }
    source = Source("price-list", f"Price List API, {region}", date.today().isoformat())
    return Prices(source=source, **prices) if prices else None


def _list_products(aws: Aws, region: str) -> Iterator[Mapping[str, Any]]:
    wanted = {
        "ServiceCode": "AmazonBedrock",
        "Filters": [{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
    }
    token: dict[str, str] = {}
    while True:
        what = "the price list can't be read"
        answer = aws.call_without_retry(what, "pricing", "get_products", **wanted, **token)
        yield from map(json.loads, answer["PriceList"])
        if not answer.get("NextToken"):
            return
        token = {"NextToken": answer["NextToken"]}


def _unit_prices(product: Mapping[str, Any], unit: re.Pattern[str]) -> Iterator[float]:
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            amount = dimension["pricePerUnit"].get("USD")
            if amount is not None and unit.fullmatch(dimension["unit"]):
                yield float(amount)
