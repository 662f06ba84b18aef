"""Calculate what serving a tuned model costs a month, by how it is served. Pure functions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from cloudft.catalogue import cost
from cloudft.catalogue.import_rules import get_unit_prices, load_import_rules
from cloudft.catalogue.model import Model
from cloudft.catalogue.prices import AmountName, PairName, Prices

ServingKind = Literal["on-demand", "provisioned", "import", "local"]
COMMITMENTS: tuple[tuple[AmountName, str, int], ...] = (
    ("provisioned_unit_hour", "no commitment", 1),
    ("provisioned_unit_hour_one_month", "1 month", 1),
    ("provisioned_unit_hour_six_months", "6 months", 6),
)
"""The prices of a unit by commitment, with its name and the months that are billed as a whole."""
WINDOWS_PER_MONTH = cost.HOURS_PER_MONTH * 60 // cost.WINDOW_MINUTES


@dataclass(frozen=True)
class Traffic:
    """Requests a month, and the tokens of one."""

    requests: int
    input_tokens: int
    output_tokens: int

    @property
    def tokens(self) -> int:
        """Return the tokens of a request."""
        return self.input_tokens + self.output_tokens


@dataclass(frozen=True)
class Serving:
    """A way to serve a model. An amount is None where its price is not known.

    `usd_per_month` is what the traffic costs; `fixed` the part of it that does not depend on the
    traffic. `break_even_requests` are the requests a month from which this is cheaper than
    on-demand inference. With `at_most`, the amount is an upper bound; `lowest` is the lower one.
    `term_months` are the months that are billed as a whole, used or not.
    """

    kind: ServingKind
    name: str
    usd_per_month: float | None
    usd_per_request: float | None = None
    fixed: float = 0.0
    break_even_requests: int | None = None
    at_most: bool = False
    lowest: float | None = None
    unknown: str = ""
    term_months: int = 1

    def billed_months(self, months: int) -> int:
        """Return the months that are billed when it serves for `months`: whole terms."""
        return -(-months // self.term_months) * self.term_months

    def usd_for(self, requests: float) -> float | None:
        """Return what so many requests a month cost."""
        if self.kind == "import" and self.usd_per_request is not None:
            return min(requests, WINDOWS_PER_MONTH) * self.usd_per_request
        if self.usd_per_request is None:
            return self.usd_per_month
        return self.fixed + requests * self.usd_per_request


def request_usd(prices: Prices | None, name: PairName, traffic: Traffic) -> float | None:
    """Return the price of one request by a pair of prices."""
    pair = prices.pair(name) if prices else None
    if pair is None:
        return None
    return (traffic.input_tokens * pair[0] + traffic.output_tokens * pair[1]) / 1000


def tuned_servings(model: Model, prices: Prices | None, traffic: Traffic) -> list[Serving]:
    """Return the ways in which Bedrock serves a tuned model, with the break-even points."""
    ways: list[Serving] = []
    each = None
    if "on-demand" in model.serving:
        each = request_usd(prices, "tuned_per_1k_tokens", traffic)
        month = None if each is None else each * traffic.requests
        ways.append(Serving("on-demand", "on demand", month, each))
    if "provisioned" in model.serving:
        ways += [_provisioned(prices, row, each) for row in COMMITMENTS]
    return ways


def _provisioned(
    prices: Prices | None, commitment: tuple[AmountName, str, int], on_demand: float | None
) -> Serving:
    """Return a model unit for a month. How many tokens a minute it takes is not published."""
    name, text, term_months = commitment
    hour = prices.usd(name) if prices else None
    month = None if hour is None else hour * cost.HOURS_PER_MONTH
    even = None if month is None or not on_demand else -int(-month // on_demand)
    return Serving(
        "provisioned",
        f"1 provisioned unit, {text}",
        month,
        0.0 if month is not None else None,
        fixed=month or 0.0,
        break_even_requests=even,
        unknown="a unit's tokens a minute are not published: more traffic may need more units",
        term_months=term_months,
    )


@dataclass(frozen=True)
class UnitCount:
    """The custom model units of a copy: between `low` and `high`; None where nothing is known."""

    low: int
    high: int | None
    reason: str


def count_copy_units(parameters: int | None) -> UnitCount:
    """Return the units of a copy of an imported model of that size.

    AWS publishes no rule, and GetImportedModel returns the number once a model is imported. Two
    examples with a context of 128K are known; here a smaller model needs no more units than a
    larger one.
    """
    examples = sorted(load_import_rules().copy_units, key=lambda row: row.parameters)
    if parameters is None:
        return UnitCount(1, None, "the model's size is not known here")
    above = next((row for row in examples if row.parameters >= parameters), None)
    below = [row for row in examples if row.parameters <= parameters]
    low = below[-1].units if below else 1
    names = " and ".join(f"{r.parameters / 1e9:g}B has {r.units}" for r in examples)
    reason = f"of Llama with a context of 128K, {names} ({examples[0].source})"
    return UnitCount(low, above.units if above else None, reason)


def import_unit_version(model: Model | None) -> str:
    """Return the version of the units of a model: gpt-oss has v2.0, every other family v1.0."""
    return "v2.0" if model is not None and model.alias.startswith("gpt-oss") else "v1.0"


def import_serving(
    parameters: int | None, version: str, region: str | None, traffic: Traffic
) -> tuple[Serving, float | None, UnitCount]:
    """Return how an imported model is served by one copy, its storage a month, and its units.

    Requests that are spread evenly over the month pay a window each, until every window is paid:
    that is the most; the least is what the requests take together, which is at least one window.
    """
    units, prices = count_copy_units(parameters), get_unit_prices(version, region)
    minute = prices.unit_minute if prices else None
    unknown = (
        "how many requests a copy answers at once is not published: more traffic may start more"
        " copies; after 5 minutes without a request the next one waits for the model to be loaded"
    )
    storage = None
    if prices and prices.unit_month is not None and units.high is not None:
        storage = prices.unit_month * units.high
    if minute is None or units.high is None:
        missing = "no price of a unit is known" if minute is None else units.reason
        return Serving("import", "1 copy", None, unknown=missing), storage, units
    window = cost.imported_model_usd(cost.WINDOW_MINUTES, 1, units.high, minute)
    least = cost.imported_model_usd(cost.WINDOW_MINUTES, 1, units.low, minute)
    serving = Serving(
        "import",
        "1 copy, in windows of 5 minutes",
        window * min(traffic.requests, WINDOWS_PER_MONTH),
        window,
        at_most=True,
        lowest=least if traffic.requests else 0.0,
        unknown=unknown,
    )
    return serving, storage, units
