"""Calculate what customization and inference cost: tokens times prices. Pure functions."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date

from cloudft.catalogue import Model, Prices
from cloudft.catalogue.prices import PairName
from cloudft.types import DataVolume, Estimate, MissingPrice

NO_PRICE_KNOWN = "no price is known"
PRICING_PAGE = "https://aws.amazon.com/bedrock/pricing"
HOURS_PER_MONTH = 730
BOTH_MODELS: tuple[PairName, ...] = ("base_per_1k_tokens", "tuned_per_1k_tokens")
MAX_DIGITS = 12
WINDOW_MINUTES = 5
"""Length in minutes of the windows in which an imported model's copies are billed."""


def training_usd(prices: Prices | None, tokens: int, epochs: int) -> float | None:
    """Return tokens of the corpus x epochs x price per 1,000; None where no price is known.

    Source of the formula: Bedrock user guide, "Custom models".
    """
    price = prices.usd("training_per_1k_tokens") if prices else None
    return None if price is None else tokens / 1000 * epochs * price


def estimate_cost(
    backend: str, model: Model, train: DataVolume, epochs: int, region: str | None = None
) -> Estimate:
    """Return tokens and cost of a job on Bedrock. AWS does not publish how long one takes."""
    prices = model.prices_in(region)
    usd = training_usd(prices, train.tokens, epochs)
    unpriced = None
    if usd is None:
        place = f" in {region}" if region and model.prices else ""
        subject = f"training {model.alias} on Bedrock{place}"
        unpriced = MissingPrice(subject, "training_per_1k_tokens", PRICING_PAGE)
    price = prices.by_name.get("training_per_1k_tokens") if prices else None
    return Estimate(
        backend=backend,
        train_tokens=train.tokens,
        epochs=epochs,
        usd={
            "training": usd,
            "storagePerMonth": prices.usd("storage_per_month") if prices else None,
            "servingPerHour": serving_usd_per_hour(model, prices),
        },
        seconds=None,
        price_source=str(price.source) if price else NO_PRICE_KNOWN,
        price_date=price.source.date if price else "",
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


def inference_usd(prices: Prices | None, input_tokens: int, output_tokens: int) -> float | None:
    """Return the price of so many tokens through the base and the tuned model on demand.

    None where their prices are not known.
    """
    both = [prices.pair(name) for name in BOTH_MODELS] if prices else [None]
    amounts = [
        input_tokens * pair[0] + output_tokens * pair[1] for pair in both if pair is not None
    ]
    return sum(amounts) / 1000 if len(amounts) == len(BOTH_MODELS) else None


def with_list_prices(estimate: Estimate, model: Model, prices: Prices) -> Estimate:
    """Return the estimate by other prices; an amount that they lack, or that is stated, stays."""
    stated = model.stated_prices
    prices = prices if stated is None else prices.updated(stated)
    price, usd = prices.by_name.get("training_per_1k_tokens"), dict(estimate.usd)
    if price is not None:
        usd["training"] = training_usd(prices, estimate.train_tokens, estimate.epochs)
    month, unit = prices.usd("storage_per_month"), prices.usd("provisioned_unit_hour")
    if month is not None:
        usd["storagePerMonth"] = month
    if "on-demand" not in model.serving and unit is not None:
        usd["servingPerHour"] = unit
    if price is None:
        return replace(estimate, usd=usd)
    return replace(estimate, usd=usd, price_source=str(price.source), price_date=price.source.date)


def serving_usd_per_hour(model: Model, prices: Prices | None, units: int = 1) -> float | None:
    """Return USD per hour of an idle tuned model: 0 on demand, its units' price if provisioned."""
    if "on-demand" in model.serving:
        return 0.0
    unit = prices.usd("provisioned_unit_hour") if prices else None
    return None if unit is None else unit * units


def imported_model_usd(minutes: float, copies: int, units: int, unit_minute: float) -> float:
    """Return USD for an imported model's copies that answered for `minutes`: by whole windows.

    Copies x units of a copy x price of a unit's minute x minutes of the windows, from the first
    answer on. Source: Bedrock user guide, "Calculate the cost of running a custom model".
    """
    windows = math.ceil(minutes / WINDOW_MINUTES)
    return copies * units * unit_minute * windows * WINDOW_MINUTES
