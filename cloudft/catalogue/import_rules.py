"""What Bedrock's Custom Model Import takes, from custom-model-import.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from cloudft.catalogue.load import read_yaml
from cloudft.catalogue.model import Source
from cloudft.catalogue.stated_prices import read_stated_prices


@dataclass(frozen=True)
class Architecture:
    """One of config.json's `architectures`. `regions` empty: every Region that imports."""

    converse: bool
    multimodal: bool = False
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitPrices:
    """USD of a custom model unit: a minute while a copy runs, a month while it is stored.

    `source` is set where a person states them.
    """

    unit_minute: float | None = None
    unit_month: float | None = None
    source: Source | None = None


@dataclass(frozen=True)
class ImportRules:
    """The rules. `dtypes` are safetensors' own words; `gigabytes_below` counts 10^9 bytes.

    `prices` is by the version of the custom model units; what is missing is not known.
    `billing_source` tells how copies are billed.
    """

    source: Source
    billing_source: Source
    regions: tuple[str, ...]
    architectures: Mapping[str, Architecture]
    transformers: str
    context_below: int
    gigabytes_below: Mapping[str, int]
    dtypes: tuple[str, ...]
    files: tuple[str, ...]
    tokenizers: tuple[str, ...]
    llama3_rope: Mapping[str, float] = field(default_factory=dict)
    gpt_oss_ends: tuple[int, ...] = ()
    prices: Mapping[str, UnitPrices] = field(default_factory=dict)


def get_unit_prices(version: str) -> UnitPrices | None:
    """Return the prices of that version's units: what CLOUDFT_HOME states, else the table's."""
    known, own = (
        load_import_rules().prices.get(version),
        read_stated_prices().import_units.get(version),
    )
    if own is None:
        return known
    before = known or UnitPrices()
    minute, month = own.unit_minute or before.unit_minute, own.unit_month or before.unit_month
    return UnitPrices(minute, month, own.price_source)


@lru_cache(maxsize=1)
def load_import_rules() -> ImportRules:
    """All of them."""
    raw = read_yaml("custom-model-import")
    told = {
        name: Source("import", raw[name]["url"], str(raw[name]["date"]))
        for name in ("source", "billing_source")
    }
    lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    kinds = {name: _to_architecture(row) for name, row in raw.pop("architectures").items()}
    raw["prices"] = {version: UnitPrices(**row) for version, row in raw["prices"].items()}
    return ImportRules(**{**raw, **lists, **told}, architectures=kinds)


def _to_architecture(row: Mapping[str, Any]) -> Architecture:
    return Architecture(**{**row, "regions": tuple(row.get("regions", ()))})
