"""What a stack costs a month while it stands, with sources; what is not known is said to be so."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from cloudft.catalogue.cost import HOURS_PER_MONTH
from cloudft.infra.template import TemplateNode


@dataclass(frozen=True)
class ResourceCost:
    """Of one resource. `per_month` None: by use, at a price that is not known here."""

    resource: str
    type: str
    per_month: float | None
    source: str | None
    date: str | None
    note: str | None


@functools.cache
def _load_table() -> Mapping[str, Any]:
    text = Path(__file__).with_name("costs.yaml").read_text(encoding="utf-8")
    found: Mapping[str, Any] = yaml.safe_load(text)
    return found


def resource_costs(resources: Mapping[str, TemplateNode]) -> list[ResourceCost]:
    """Of those resources of a template that cost; the others are left out."""
    found = (_resource_cost(name, told) for name, told in resources.items())
    return [cost for cost in found if cost is not None]


def _resource_cost(name: str, told: TemplateNode) -> ResourceCost | None:
    kind, properties = str(told["Type"]), told.get("Properties", {})
    table = _load_table()
    key = f"{kind}/{properties.get('VpcEndpointType', '')}".rstrip("/")
    row = table["standing"].get(key)
    if row is not None:
        source = table["sources"][row["source"]]
        amount = row.get("per_month")
        if amount is None:
            amount = row["per_zone_hour"] * HOURS_PER_MONTH * len(properties["SubnetIds"])
        return ResourceCost(name, kind, amount, source["url"], str(source["date"]), row.get("note"))
    use = table["by_use"].get(kind)
    return ResourceCost(name, kind, None, None, None, use) if use else None


def sum_known_costs(found: Iterable[ResourceCost]) -> float:
    """The sum of what is known."""
    return sum(cost.per_month or 0.0 for cost in found)
