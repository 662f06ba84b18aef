"""Calculate what customization and inference cost: tokens times prices. Pure functions."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date
from typing import Any

from cloudft.catalogue import Model, Prices
from cloudft.types import DataVolume, Estimate, MissingPrice

NO_PRICE_KNOWN = "no price is known"
PRICING_PAGE = "https://aws.amazon.com/bedrock/pricing"
HOURS_PER_MONTH = 730
MAX_DIGITS = 12
WINDOW_MINUTES = 5
"""Length in minutes of the windows in which an imported model's copies are billed."""


def training_usd(model: Model, tokens: int, epochs: int) -> float | None:
    """Return tokens of the corpus x epochs x price per 1,000; None where no price is known.

    Source of the formula: Bedrock user guide, "Custom models".
    """
    price = model.prices.training_per_1k_tokens if model.prices else None
    return None if price is None else tokens / 1000 * epochs * price


def estimate_cost(backend: str, model: Model, train: DataVolume, epochs: int) -> Estimate:
    """Return tokens and cost of a job on Bedrock. AWS does not publish how long one takes."""
    prices, usd = model.prices, training_usd(model, train.tokens, epochs)
    unpriced = None
    if usd is None:
        subject = f"training {model.alias} on Bedrock"
        unpriced = MissingPrice(subject, "training_per_1k_tokens", PRICING_PAGE)
    return Estimate(
        backend=backend,
        train_tokens=train.tokens,
        epochs=epochs,
        usd={
            "training": usd,
            "storagePerMonth": prices.storage_per_month if prices else None,
            "servingPerHour": serving_usd_per_hour(model),
        },
        seconds=None,
        price_source=str(prices.source) if prices else NO_PRICE_KNOWN,
        price_date=prices.source.date if prices else "",
        unpriced=unpriced,
    )


def price_line(unpriced: MissingPrice, today: date) -> str:
    """Return the line of a job file that states a price, with USD in place of the number."""
    source = f'source: "{unpriced.listed_at}", date: {today.isoformat()}'
    return f"prices: {{{unpriced.field}: USD, {source}}}"


def format_usd(amount: float, digits: int = 2) -> str:
    """Return an amount as `1,234.50 USD`; below a cent with enough digits to be above zero."""
    while 0 < abs(amount) < min(0.01, 10.0 ** (1 - digits)) and digits < MAX_DIGITS:
        digits += 1
    return f"{amount:,.{digits}f} USD"


def format_distinct_usd(amount: float, bound: float) -> tuple[str, str]:
    """Return `amount` and `bound`: the bound in full, the amount with enough digits to differ."""
    whole = 2
    while whole < MAX_DIGITS and round(bound, whole) != bound:
        whole += 1
    digits = whole
    while digits < MAX_DIGITS and round(amount, digits) == round(bound, digits):
        digits += 1
    return format_usd(amount, digits), f"{bound:,.{whole}f} USD"


def inference_usd(model: Model, input_tokens: int, output_tokens: int) -> float | None:
    """Return the price of so many tokens through the base and the tuned model on demand.

    None where their prices are not known.
    """
    prices = model.prices
    if prices is None or prices.base_per_1k_tokens is None or prices.tuned_per_1k_tokens is None:
        return None
    both = (prices.base_per_1k_tokens, prices.tuned_per_1k_tokens)
    return sum(input_tokens * into + output_tokens * out for into, out in both) / 1000


def with_list_prices(estimate: Estimate, model: Model, prices: Prices) -> Estimate:
    """Return the estimate by other prices; an amount that they lack, or that is stated, stays."""
    stated: dict[str, Any] = dict.fromkeys(model.prices.stated) if model.prices else {}
    prices = replace(prices, **stated)
    price, usd = prices.training_per_1k_tokens, dict(estimate.usd)
    if price is not None:
        usd["training"] = estimate.train_tokens / 1000 * estimate.epochs * price
    if prices.storage_per_month is not None:
        usd["storagePerMonth"] = prices.storage_per_month
    if "on-demand" not in model.serving and prices.provisioned_unit_hour is not None:
        usd["servingPerHour"] = prices.provisioned_unit_hour
    source = str(prices.source.url)
    if price is None and estimate.usd["training"] is not None:
        source = f"{estimate.price_source}, {estimate.price_date}; else {source}"
    return replace(estimate, usd=usd, price_source=source, price_date=prices.source.date)


def serving_usd_per_hour(model: Model, units: int = 1) -> float | None:
    """Return USD per hour of an idle tuned model: 0 on demand, its units' price if provisioned."""
    if "on-demand" in model.serving:
        return 0.0
    unit = model.prices.provisioned_unit_hour if model.prices else None
    return None if unit is None else unit * units


def imported_model_usd(minutes: float, copies: int, units: int, unit_minute: float) -> float:
    """Return USD for an imported model's copies that answered for `minutes`: by whole windows.

    Copies x units of a copy x price of a unit's minute x minutes of the windows, from the first
    answer on. Source: Bedrock user guide, "Calculate the cost of running a custom model".
    """
    windows = math.ceil(minutes / WINDOW_MINUTES)
    return copies * units * unit_minute * windows * WINDOW_MINUTES
