"""What a customization costs: tokens times prices. Pure."""

from __future__ import annotations

from cloudft.catalogue import Model
from cloudft.types import Estimate, Volume

UNKNOWN = "no price is known"
HOURS_PER_MONTH = 730


def training_usd(model: Model, tokens: int, epochs: int) -> float | None:
    """Tokens of the corpus x epochs x price per 1,000; None where no price is known.

    Source of the formula: Bedrock user guide, "Custom models".
    """
    price = model.prices.training_per_1k_tokens if model.prices else None
    return None if price is None else tokens / 1000 * epochs * price


def estimate(backend: str, model: Model, train: Volume, epochs: int) -> Estimate:
    """Tokens, time and cost on Bedrock. How long it takes is not published."""
    prices = model.prices
    return Estimate(
        backend=backend,
        train_tokens=train.tokens,
        epochs=epochs,
        usd={
            "training": training_usd(model, train.tokens, epochs),
            "storagePerMonth": prices.storage_per_month if prices else None,
            "servingPerHour": serving_per_hour(model),
        },
        seconds=None,
        price_source=str(prices.source) if prices else UNKNOWN,
        price_date=prices.source.date if prices else "",
    )


def serving_per_hour(model: Model, units: int = 1) -> float | None:
    """What an idle tuned model costs an hour: nothing on demand, its units when provisioned."""
    if "on-demand" in model.serving:
        return 0.0
    unit = model.prices.provisioned_unit_hour if model.prices else None
    return None if unit is None else unit * units
