"""Calculate what customization and inference cost: tokens times prices. Pure functions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime, timezone
from typing import get_args

from cloudft.catalogue import Model, Prices, Source
from cloudft.catalogue.prices import UNITS, Certainty, PairName, is_old
from cloudft.catalogue.profile_ids import GLOBAL, parse_profile
from cloudft.types import BilledPart, Estimate, MissingPrice, UnitPrice

NO_PRICE_KNOWN = "no price is known"
PRICING_PAGE = "https://aws.amazon.com/bedrock/pricing"
HOURS_PER_MONTH = 730
MAX_DIGITS = 12
PER_1K = "per_1k_tokens"
"""Part of the name of every price of a thousand tokens."""
SIDES = ("input", "output")
"""What the prices of a pair are for."""
WINDOW_MINUTES = 5
"""Length in minutes of the windows in which an imported model's copies are billed."""


def unit_price(prices: Prices | None, name: str, today: date | None = None) -> UnitPrice | None:
    """Return a price by its name, one of a pair by `NAME.input` or `NAME.output`; None if unknown.

    A source's age is counted to `today`, which is this day unless it is given.
    """
    key, _, side = name.partition(".")
    price = prices.by_name.get(key) if prices else None  # type: ignore[call-overload]
    if prices is None or price is None:
        return None
    usd = price.usd[SIDES.index(side)] if isinstance(price.usd, tuple) else price.usd
    region = None if price.certainty == "stated" else prices.region
    return to_unit_price(usd, price.source, price.certainty, region, today)


def to_unit_price(
    usd: float,
    source: Source | None,
    certainty: Certainty,
    region: str | None,
    today: date | None = None,
) -> UnitPrice:
    """Return a price with its source, and whether that is more than a year old."""
    day = today or datetime.now(timezone.utc).date()
    text = "" if source is None else source.date
    return UnitPrice(usd, str(source or ""), text, certainty, region, is_old(text, day))


def billed_part(
    what: str, quantity: float | None, prices: Prices | None, model: Model, name: str
) -> BilledPart:
    """Return what a quantity costs by a price of a model; tokens have a price for a thousand."""
    price = unit_price(prices, name)
    unit = "token" if PER_1K in name else UNITS[name].split()[0]  # type: ignore[index]
    part = BilledPart(what, quantity, unit, None, price, model=model.alias, price_name=name)
    return priced(part, price)


def priced(part: BilledPart, price: UnitPrice | None) -> BilledPart:
    """Return the part at another price."""
    usd = None
    if part.quantity is not None and price is not None:
        usd = part.quantity * price.usd / (1000 if PER_1K in part.price_name else 1)
    return replace(part, price=price, usd=usd)


def sum_parts(parts: Iterable[BilledPart]) -> float | None:
    """Return the sum of the amounts; None where one of them is not known."""
    amounts = [part.usd for part in parts]
    known = [usd for usd in amounts if usd is not None]
    return sum(known) if len(known) == len(amounts) else None


def with_parts(estimate: Estimate, parts: Sequence[BilledPart]) -> Estimate:
    """Return the estimate with these parts, their sum, and the first one's source."""
    price = parts[0].price
    return replace(
        estimate,
        parts=tuple(parts),
        usd={**estimate.usd, "training": sum_parts(parts)},
        price_source=price.source if price else NO_PRICE_KNOWN,
        price_date=price.date if price else "",
        price_certainty=price.certainty if price else "",
        price_is_old=bool(price and price.is_old),
    )


def price_line(unpriced: MissingPrice, today: date) -> str:
    """Return the line that states a price, with USD in place of the number.

    It is a line of the job file, or of prices.yaml for another model's price.
    """
    source = f'source: "{unpriced.listed_at}", date: {today.isoformat()}'
    number = "[USD, USD]" if unpriced.field in get_args(PairName) else "USD"
    line = f"{{{unpriced.field}: {number}, {source}}}"
    if unpriced.model is None:
        return f"prices: {line}"
    return f"models: {{{unpriced.model}: {line}}}"


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


def inference_usd(
    prices: Prices | None, input_tokens: int, output_tokens: int, *, base_id: str = ""
) -> float | None:
    """Return the price of so many tokens through the base and the tuned model on demand.

    `base_id` is the id that the base model is called by. None where their prices are not known.
    """
    if prices is None:
        return None
    both = [prices.pair(base_price_name(base_id)), prices.pair("tuned_per_1k_tokens")]
    amounts = [
        input_tokens * pair[0] + output_tokens * pair[1] for pair in both if pair is not None
    ]
    return sum(amounts) / 1000 if len(amounts) == len(both) else None


def base_price_name(base_id: str) -> PairName:
    """Return the name of the price of a base model that is called by an id.

    A geographic profile has the price of the Region that it is called in; the global one has its
    own. Source: Bedrock user guide, "Global cross-Region inference", 2026-10.
    """
    profile = parse_profile(base_id)
    is_global = profile is not None and profile.area == GLOBAL
    return "global_per_1k_tokens" if is_global else "base_per_1k_tokens"


def with_list_prices(
    estimate: Estimate, model: Model, listed: Mapping[str, Prices], today: date | None = None
) -> Estimate:
    """Return the estimate by prices of AWS's Price List, by the aliases of their models.

    A price that the list lacks, or that is stated, stays. Where the list has another price than the
    catalogue, a part has both.
    """
    parts = [
        at_list_price(part, unit_price(listed.get(part.model), part.price_name, today))
        for part in estimate.parts
    ]
    if parts:
        estimate = with_parts(estimate, parts)
    if parts and all(part.price is not None for part in parts):
        estimate = replace(estimate, unpriced=None)
    prices, usd, stated = listed.get(model.alias), dict(estimate.usd), model.stated_prices
    if prices is None:
        return estimate
    prices = prices if stated is None else prices.updated(stated)
    month, unit = prices.usd("storage_per_month"), prices.usd("provisioned_unit_hour")
    if month is not None:
        usd["storagePerMonth"] = month
    if "on-demand" not in model.serving and unit is not None:
        usd["servingPerHour"] = unit
    return replace(estimate, usd=usd)


def at_list_price(part: BilledPart, price: UnitPrice | None) -> BilledPart:
    """Return the part at the Price List's price, with the catalogue's beside it if they differ."""
    if price is None or (part.price is not None and part.price.certainty == "stated"):
        return part
    differs = part.price is not None and not math.isclose(part.price.usd, price.usd)
    return replace(priced(part, price), not_used=part.price if differs else None)


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
