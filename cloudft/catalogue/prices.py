"""Prices of a model on Bedrock, each with its Region, source, date and certainty."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from types import MappingProxyType
from typing import Literal, get_args

from cloudft.catalogue.source import Source

Certainty = Literal["several", "one", "conflict", "third-party", "list", "stated"]
"""How sure a price is: several independent sources agree; one source; sources conflict, and this is
the newest; one third-party source only; read from AWS's Price List now; the user's own."""
CERTAINTY_TEXTS: Mapping[Certainty, str] = {
    "several": "several sources agree",
    "one": "one source",
    "conflict": "sources conflict, this is the newest",
    "third-party": "one third-party source",
    "list": "AWS's Price List",
    "stated": "your own",
}
AmountName = Literal[
    "training_per_1k_tokens",
    "reinforcement_hour",
    "storage_per_month",
    "provisioned_unit_hour",
    "provisioned_unit_hour_one_month",
    "provisioned_unit_hour_six_months",
    "tuned_cache_read_per_1k_tokens",
]
PairName = Literal[
    "base_per_1k_tokens",
    "global_per_1k_tokens",
    "batch_per_1k_tokens",
    "tuned_per_1k_tokens",
]
"""Prices of tokens on demand: input, output."""
PriceName = Literal[AmountName, PairName]
UNITS: Mapping[PriceName, str] = {
    "training_per_1k_tokens": "1,000 tokens trained",
    "reinforcement_hour": "hour of reinforcement fine-tuning",
    "storage_per_month": "custom model and month",
    "provisioned_unit_hour": "model unit and hour, without commitment",
    "provisioned_unit_hour_one_month": "model unit and hour, committed for 1 month",
    "provisioned_unit_hour_six_months": "model unit and hour, committed for 6 months",
    "base_per_1k_tokens": "1,000 tokens of the base model: input, output",
    "global_per_1k_tokens": "1,000 tokens by the global profile: input, output",
    "batch_per_1k_tokens": "1,000 tokens of the base model in batch: input, output",
    "tuned_per_1k_tokens": "1,000 tokens of the tuned model: input, output",
    "tuned_cache_read_per_1k_tokens": "1,000 tokens of the tuned model read from the cache",
}
"""Unit of each price. All amounts are in USD."""
COMMITMENTS: Mapping[str, AmountName] = {
    "OneMonth": "provisioned_unit_hour_one_month",
    "SixMonths": "provisioned_unit_hour_six_months",
}
"""Price of a model unit by `commitmentDuration` of CreateProvisionedModelThroughput."""
PRICE_NAMES: tuple[str, ...] = (*get_args(AmountName), *get_args(PairName))
YEAR = timedelta(days=365)


@dataclass(frozen=True)
class Price:
    """An amount in USD, or a pair of them for input and output; its unit follows from its name."""

    usd: float | tuple[float, float]
    source: Source
    certainty: Certainty = "one"


@dataclass(frozen=True)
class Prices:
    """Prices of a model in one Region by their names; `region` is None where a source names none.

    A name that is missing has no known price.
    """

    region: str | None
    by_name: Mapping[PriceName, Price]

    @classmethod
    def of(
        cls,
        amounts: Mapping[str, float | tuple[float, float] | None],
        source: Source,
        certainty: Certainty = "one",
        region: str | None = None,
    ) -> Prices:
        """Return prices of one source; an amount that is None is left out.

        Raise ValueError for a name that is no price.
        """
        by_name: dict[PriceName, Price] = {}
        for name, usd in amounts.items():
            if name not in PRICE_NAMES:
                raise ValueError(f"{name!r} is no price: {', '.join(PRICE_NAMES)}")
            if usd is not None:
                by_name[name] = Price(usd, source, certainty)  # type: ignore[index]
        return cls(region, MappingProxyType(by_name))

    def usd(self, name: AmountName) -> float | None:
        """Return an amount in USD; None if no price is known."""
        price = self.by_name.get(name)
        return None if price is None or isinstance(price.usd, tuple) else price.usd

    def pair(self, name: PairName) -> tuple[float, float] | None:
        """Return the prices of input and output tokens in USD; None if none are known."""
        price = self.by_name.get(name)
        return price.usd if price is not None and isinstance(price.usd, tuple) else None

    def source_of(self, name: PriceName) -> Source | None:
        """Return the source of a price; None if no price is known."""
        price = self.by_name.get(name)
        return None if price is None else price.source

    def updated(self, other: Prices) -> Prices:
        """Return these prices with those of `other` in place of the ones that it has."""
        return Prices(self.region, MappingProxyType({**self.by_name, **other.by_name}))


def merge_prices(rows: Iterable[Prices]) -> tuple[Prices, ...]:
    """Return one `Prices` for each Region from rows of several sources.

    Raise ValueError where two rows name one price of one Region.
    """
    regions: dict[str | None, Prices] = {}
    for row in rows:
        known = regions.get(row.region)
        if known is None:
            regions[row.region] = row
            continue
        twice = known.by_name.keys() & row.by_name.keys()
        if twice:
            raise ValueError(f"{sorted(twice)} of {row.region} are there twice")
        regions[row.region] = known.updated(row)
    return tuple(regions.values())


def latest_day(text: str) -> date | None:
    """Return the last day that a date of a source can mean: `2026`, `2026-02` or `2026-02-17`."""
    try:
        parts = [int(part) for part in text.split("-")]
        if len(parts) == 3:
            return date(*parts)
        year, month = (parts[0], 12) if len(parts) == 1 else parts
        return date(year + month // 12, month % 12 + 1, 1) - timedelta(days=1)
    except ValueError:
        return None


def is_old(text: str, today: date) -> bool:
    """Return whether a source's date is more than a year ago, or is no date."""
    day = latest_day(text)
    return day is None or today - day > YEAR
