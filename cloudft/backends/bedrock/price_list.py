"""Read current prices from AWS's Price List Query API.

A price is used only where exactly one product of the Region matches the model; nothing is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import date
from typing import Any

from cloudft.aws.client import Aws, Response
from cloudft.catalogue import Model, Prices, Source
from cloudft.catalogue.prices import PriceName

PRICE_LIST_REGION = "us-east-1"
"""Region of the API's endpoint (AWS Billing user guide, "Price List Query API endpoints")."""
HOURS = re.compile(r"h(ou)?rs?", re.I)
TOKENS = re.compile(r"1K tokens", re.I)
ANY_UNIT = re.compile(r".*")


def _pair(form: str) -> tuple[str, str]:
    """Return the ends of the usage types of input and output tokens."""
    return form.format("input"), form.format("output")


USAGE_TYPES: Mapping[PriceName, tuple[tuple[str, ...], re.Pattern[str]]] = {
    "training_per_1k_tokens": (("Customization-Training",), TOKENS),
    "reinforcement_hour": (("RFT-Training-Hours",), HOURS),
    "storage_per_month": (("Customization-Storage",), ANY_UNIT),
    "provisioned_unit_hour": (("ProvisionedThroughput-NoCommit-ModelUnits",), HOURS),
    "provisioned_unit_hour_one_month": (("ProvisionedThroughput-1months?-ModelUnits",), HOURS),
    "provisioned_unit_hour_six_months": (("ProvisionedThroughput-6months?-ModelUnits",), HOURS),
    "base_per_1k_tokens": (_pair("(?:text-)?{}-tokens"), TOKENS),
    "global_per_1k_tokens": (_pair("(?:text-)?{}-tokens-cross-region-global"), TOKENS),
    "batch_per_1k_tokens": (_pair("(?:text-)?{}-tokens-batch"), TOKENS),
    "tuned_per_1k_tokens": (_pair("(?:text-)?{}-tokens-custom-model"), TOKENS),
    "tuned_cache_read_per_1k_tokens": (
        ("cache-read-input-token-count-custom-model",),
        TOKENS,
    ),
}
"""Name of a price -> ends of its usage types (for a pair: input, output), and the unit that the
price must be in. Sources: dumps of the Price List of 2026-02-17 and 2026-09-12, and usage types
logged by public projects (2026-08); of six months of commitment no row was read, only its price."""


def fetch_prices(aws: Aws, models: Sequence[Model], region: str) -> Mapping[str, Prices]:
    """Return the models' prices in a Region by their aliases; one without any is left out.

    Raise CloudRefused and CloudUnreachable.
    """
    listed = {model.alias: model.price_list for model in models if model.price_list is not None}
    if not listed:
        return {}
    products = list(_list_products(Aws(replace(aws.location, region=PRICE_LIST_REGION)), region))
    source = Source("price-list", f"Price List API, {region}", date.today().isoformat())
    prices = {
        alias: Prices.of(_model_prices(name, products), source, "list", region)
        for alias, name in listed.items()
    }
    return {alias: found for alias, found in prices.items() if found.by_name}


def _model_prices(name: str, products: Iterable[Response]) -> dict[str, Any]:
    """Return the amounts of a model's products, by the names of prices."""
    amounts: dict[str, Any] = {}
    for price, (ends, unit) in USAGE_TYPES.items():
        found = [_only_price(products, rf"{re.escape(name)}-{end}", unit) for end in ends]
        if None not in found:
            amounts[price] = found[0] if len(found) == 1 else tuple(found)
    return amounts


def _only_price(products: Iterable[Response], usage: str, unit: re.Pattern[str]) -> float | None:
    """Return the price of a usage type; None where products disagree, or there is none.

    A usage type may begin with the Region's code, such as USE1-. Of two products with different
    prices, neither can be the model's for sure.
    """
    form = re.compile(rf"(?:[A-Z0-9]+-)?{usage}")
    prices = {
        amount
        for product in products
        if form.fullmatch(product["product"]["attributes"].get("usagetype", ""))
        for amount in _unit_prices(product, unit)
    }
    return prices.pop() if len(prices) == 1 else None


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
