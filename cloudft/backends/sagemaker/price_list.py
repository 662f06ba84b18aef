"""Look up the current price of an instance in the AWS Price List. Nothing is guessed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cloudft.aws.client import Aws

PRICE_LIST_REGION = "us-east-1"
"""Where the Price List answers (AWS Billing user guide, "Price List Query API endpoints")."""
HOUR_UNIT = re.compile(r"h(ou)?rs?", re.I)


def fetch_hourly_price(aws: Aws, instance_type: str, region: str) -> float | None:
    """Return USD of an hour of training; None unless exactly one price is listed.

    Raise CloudRefused.
    """
    fields = {"regionCode": region, "instanceName": instance_type, "component": "Training"}
    filters = [{"Type": "TERM_MATCH", "Field": k, "Value": v} for k, v in fields.items()]
    price_list = Aws(replace(aws.location, region=PRICE_LIST_REGION))
    what = "the price list can't be read"
    answer = price_list.call_without_retry(
        what, "pricing", "get_products", ServiceCode="AmazonSageMaker", Filters=filters
    )
    prices = {
        price for product in answer["PriceList"] for price in _hourly_prices(json.loads(product))
    }
    return prices.pop() if len(prices) == 1 else None


def _hourly_prices(product: Mapping[str, Any]) -> set[float]:
    return {
        float(dimension["pricePerUnit"]["USD"])
        for term in product.get("terms", {}).get("OnDemand", {}).values()
        for dimension in term["priceDimensions"].values()
        if "USD" in dimension["pricePerUnit"] and HOUR_UNIT.fullmatch(dimension["unit"])
    }
