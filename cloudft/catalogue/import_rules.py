"""Rules of Bedrock's Custom Model Import, from custom-model-import.yaml."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from cloudft.catalogue.load import FOLDER, Yaml, read_sources, read_yaml
from cloudft.catalogue.prices import Certainty
from cloudft.catalogue.source import Source
from cloudft.catalogue.stated_prices import read_stated_prices


@dataclass(frozen=True)
class Architecture:
    """An architecture that can be imported. No `regions`: every Region that imports models."""

    converse: bool
    multimodal: bool = False
    regions: tuple[str, ...] = ()


@dataclass(frozen=True)
class UnitPrices:
    """Prices of a custom model unit in USD: a minute while a copy runs, a month of storage."""

    unit_minute: float | None = None
    unit_month: float | None = None
    source: Source | None = None
    certainty: Certainty = "stated"


@dataclass(frozen=True)
class CopyUnits:
    """Units of a copy of a model of that size and context, as a source has them."""

    architecture: str
    parameters: int
    context: int
    units: int
    source: Source


@dataclass(frozen=True)
class ImportRules:
    """Rules for a model folder.

    `template_files` are the files that may have the chat template. `dtypes` are safetensors' names;
    `gigabytes_below` counts 10^9 bytes.
    `prices` is by version of the custom model units and by Region; a missing price is not known.
    `copy_units` are examples: how AWS derives the units of a copy is not published.
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
    template_files: tuple[str, ...]
    tokenizers: tuple[str, ...]
    llama3_rope: Mapping[str, float] = field(default_factory=dict)
    gpt_oss_ends: tuple[int, ...] = ()
    prices: Mapping[tuple[str, str], UnitPrices] = field(default_factory=dict)
    copy_units: tuple[CopyUnits, ...] = ()


def get_unit_prices(version: str, region: str | None) -> UnitPrices | None:
    """Return the prices of that version's units: those of CLOUDFT_HOME, else the catalogue's.

    Regions differ in price, so one that no source has is not known.
    """
    listed = load_import_rules().prices.get((version, region or ""))
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
    named = {
        name: Source("import", raw[name]["url"], str(raw[name]["date"]))
        for name in ("source", "billing_source")
    }
    sources = read_sources(raw)
    del raw["sources"]
    kinds = {name: _to_architecture(row) for name, row in raw.pop("architectures").items()}
    prices = dict(_to_unit_prices(row, sources) for row in _by_region(raw.pop("prices")))
    units = tuple(
        CopyUnits(**{**row, "source": sources[row["source"]]}) for row in raw.pop("copy_units")
    )
    lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
    tables = {"architectures": kinds, "prices": prices, "copy_units": units}
    return ImportRules(**{**raw, **lists, **named, **tables})


def _by_region(rows: list[Yaml]) -> Iterator[Yaml]:
    """Yield the price rows once for each of their Regions."""
    for row in rows:
        yield from ({**row, "region": region} for region in row["regions"])


def _to_unit_prices(row: Yaml, sources: Mapping[str, Source]) -> tuple[tuple[str, str], UnitPrices]:
    amounts = (row["unit_minute"], row["unit_month"])
    prices = UnitPrices(*amounts, sources[row["source"]], row["certainty"])
    return (row["version"], row["region"]), prices


def _to_architecture(row: Yaml) -> Architecture:
    return Architecture(**{**row, "regions": tuple(row.get("regions", ()))})
