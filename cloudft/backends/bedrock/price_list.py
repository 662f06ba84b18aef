"""Read current prices from AWS's Price List Query API.

A price is used only where exactly one product of the Region matches the model; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import date
from typing import Any

from cloudft.aws.client import Aws, Response
from cloudft.catalogue import Model, Prices, Source
from cloudft.catalogue.prices import AmountName

PRICE_LIST_REGION = "us-east-1"
"""Region of the API's endpoint (AWS Billing user guide, "Price List Query API endpoints")."""
HOURS = re.compile(r"h(ou)?rs?", re.I)
USAGE_TYPES: Mapping[AmountName, tuple[str, re.Pattern[str]]] = {
    "training_per_1k_tokens": ("Customization-Training", re.compile(r"1K tokens", re.I)),
    "reinforcement_hour": ("RFT-Training-Hours", HOURS),
    "storage_per_month": ("Customization-Storage", re.compile(r".*")),
    "provisioned_unit_hour": ("ProvisionedThroughput-NoCommit-ModelUnits", HOURS),
    "provisioned_unit_hour_one_month": ("ProvisionedThroughput-1month-ModelUnits", HOURS),
}
"""Name of a price -> end of the usage type, and the unit that the price must be in."""


def fetch_prices(aws: Aws, model: Model, region: str) -> Prices | None:
    """Return the model's prices in a Region; None when the list has none.

    Raise CloudRefused and CloudUnreachable.
    """
    if model.price_list is None:
        return None
    amounts: dict[str, set[float]] = {name: set() for name in USAGE_TYPES}
    for product in _list_products(Aws(replace(aws.location, region=PRICE_LIST_REGION)), region):
        usage = product["product"]["attributes"].get("usagetype", "")
        for name, (suffix, unit) in USAGE_TYPES.items():
            # A usage type may begin with the Region's code, such as USE1-.
            if re.fullmatch(rf"([A-Z0-9]+-)?{re.escape(model.price_list)}-{suffix}", usage):
                amounts[name] |= set(_unit_prices(product, unit))
    # Two products of one usage type with different prices: neither can be the model's for sure.
    prices: dict[str, Any] = {
        name: prices.pop() for name, prices in amounts.items() if len(prices) == 1
    }
    source = Source("price-list", f"Price List API, {region}", date.today().isoformat())
    return Prices.of(prices, source, "list", region) if prices else None


def _list_products(aws: Aws, region: str) -> Iterator[Response]:
    """Yield the products of Bedrock in a Region; each is a JSON document in the response."""
    products = aws.paginate_without_retry(
        "the price list can't be read",
        "pricing",
        "get_products",
        "PriceList",
        ServiceCode="AmazonBedrock",
        Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": region}],
    )
    yield from map(json.loads, products)


def _unit_prices(product: Response, unit: re.Pattern[str]) -> Iterator[float]:
    """Yield a product's on-demand prices in USD for a unit."""
    for term in product.get("terms", {}).get("OnDemand", {}).values():
        for dimension in term["priceDimensions"].values():
            amount = dimension["pricePerUnit"].get("USD")
            if amount is not None and unit.fullmatch(dimension["unit"]):
                yield float(amount)
