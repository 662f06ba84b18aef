"""Return what a stack costs per month, with sources. Resources with unknown prices are listed."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import yaml

from cloudft.catalogue.cost import HOURS_PER_MONTH
from cloudft.infra.template import TemplateNode


@dataclass(frozen=True)
class ResourceCost:
    """The cost of one resource in USD.

    `per_month` is None when the resource is billed by use at a price that is not known here.
    """

    resource: str
    type: str
    per_month: float | None
    source: str | None
    date: str | None
    note: str | None


class _Source(msgspec.Struct):
    url: str
    date: int | str


class _StandingCost(msgspec.Struct):
    """The price of a resource while it exists: per month, or per Availability Zone and hour."""

    source: str
    per_month: float | None = None
    per_zone_hour: float = 0.0
    note: str | None = None


class _Table(msgspec.Struct):
    """The content of costs.yaml."""

    sources: dict[str, _Source]
    standing: dict[str, _StandingCost]
    by_use: dict[str, str]


@functools.cache
def _load_table() -> _Table:
    text = Path(__file__).with_name("costs.yaml").read_text(encoding="utf-8")
    return msgspec.convert(yaml.safe_load(text), _Table)


def resource_costs(resources: Mapping[str, TemplateNode]) -> list[ResourceCost]:
    """Return the costs of a template's resources; resources without cost are left out."""
    costs = (_resource_cost(name, resource) for name, resource in resources.items())
    return [cost for cost in costs if cost is not None]


def _resource_cost(name: str, resource: TemplateNode) -> ResourceCost | None:
    kind, properties = str(resource["Type"]), resource.get("Properties", {})
    table = _load_table()
    # Only interface endpoints of a VPC are billed by the hour, so their row names the kind; of the
    # functions only the monitor sends a metric, so its row names the resource.
    part = properties.get("VpcEndpointType", "")
    rows = (f"{kind}/{name}", f"{kind}/{part}".rstrip("/"))
    price = next((table.standing[row] for row in rows if row in table.standing), None)
    if price is None:
        use = table.by_use.get(kind)
        return ResourceCost(name, kind, None, None, None, use) if use else None
    source = table.sources[price.source]
    per_month = price.per_month
    if per_month is None:
        per_month = price.per_zone_hour * HOURS_PER_MONTH * len(properties["SubnetIds"])
    return ResourceCost(name, kind, per_month, source.url, str(source.date), price.note)


def sum_known_costs(costs: Iterable[ResourceCost]) -> float:
    """Return the sum of the known costs."""
    return sum(cost.per_month or 0.0 for cost in costs)
