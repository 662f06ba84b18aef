"""Rules of Bedrock's Custom Model Import, from custom-model-import.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cloudft.catalogue.load import FOLDER, Yaml, read_yaml
from cloudft.catalogue.model import Source
from cloudft.catalogue.stated_prices import read_stated_prices


@dataclass(frozen=True)
class Architecture:
    """An architecture that can be imported. No `regions`: every Region that imports models."""

    converse: bool
    multimodal: bool = False
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitPrices:
    """Prices of a custom model unit in USD: a minute while a copy runs, a month of storage.

    `source` is set where the user states them.
    """

    unit_minute: float | None = None
    unit_month: float | None = None
    source: Source | None = None


@dataclass(frozen=True)
class ImportRules:
    """Rules for a model folder.

    `dtypes` are safetensors' names; `gigabytes_below` counts 10^9 bytes.
    `prices` is by version of the custom model units; a missing price is not known.
    `billing_source` documents how copies are billed.
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
    """Return the prices of that version's units: those of CLOUDFT_HOME, else the catalogue's."""
    listed = load_import_rules().prices.get(version)
    stated = read_stated_prices().import_units.get(version)
    if stated is None:
        return listed
    listed = listed or UnitPrices()
    minute = stated.unit_minute or listed.unit_minute
    month = stated.unit_month or listed.unit_month
    return UnitPrices(minute, month, stated.price_source)


@lru_cache(maxsize=1)
def load_import_rules() -> ImportRules:
    """Return the rules."""
    raw = read_yaml(FOLDER / "custom-model-import.yaml")
    sources = {
        name: Source("import", raw[name]["url"], str(raw[name]["date"]))
        for name in ("source", "billing_source")
    }
    lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    kinds = {name: _to_architecture(row) for name, row in raw.pop("architectures").items()}
    raw["prices"] = {version: UnitPrices(**row) for version, row in raw["prices"].items()}
    return ImportRules(**{**raw, **lists, **sources}, architectures=kinds)


def _to_architecture(row: Yaml) -> Architecture:
    return Architecture(**{**row, "regions": tuple(row.get("regions", ()))})
