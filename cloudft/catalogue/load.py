"""Load the catalogue's YAML files as `Model` values, once per process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cloudft.catalogue.model import (
    Hyperparameter,
    Lifecycle,
    Limits,
    MediaLimits,
    Model,
    Weights,
)
from cloudft.catalogue.prices import Prices, merge_prices
from cloudft.catalogue.source import Source

FOLDER = Path(__file__).parent
FAMILY_FOLDERS = [FOLDER / "families"]
"""Every `*.yaml` in these folders is a family of models."""
LAST = 1000
"""`order` of a family that names none: it is listed after those that do."""
OPEN_WEIGHT = FOLDER / "families" / "open-weight.yaml"
LOCAL_TABLE = "local"
Yaml = dict[str, Any]
"""A YAML mapping as it is parsed; its values go into the dataclasses of model.py here."""


@lru_cache(maxsize=1)
def load_models() -> tuple[Model, ...]:
    """Return every model of the catalogue, by the `order` of its family, then as the file has it.

    Files list the newest model first.
    """
    paths = [path for folder in FAMILY_FOLDERS for path in sorted(folder.glob("*.yaml"))]
    families = sorted(map(read_yaml, paths), key=lambda family: family.get("order", LAST))
    return tuple(model for family in families for model in _load_family(family))


@lru_cache(maxsize=2)
def load_local_hyperparameters(customization_type: str = "") -> Mapping[str, Hyperparameter]:
    """Return the hyperparameters of the local trainer, whatever open weights it trains.

    A customization type may have a table of its own.
    """
    raw = read_yaml(OPEN_WEIGHT)
    tables = raw["hyperparameters"]
    table = tables.get(f"{LOCAL_TABLE}-{customization_type}", tables[LOCAL_TABLE])
    return _to_hyperparameters(table, read_sources(raw))


def read_yaml(path: Path) -> Yaml:
    """Return the mapping in a YAML file of the catalogue."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    data: Yaml = yaml.load(path.read_text(encoding="utf-8"), Loader=loader)
    return data


def read_sources(raw: Yaml) -> dict[str, Source]:
    """Return the sources of a file by their keys."""
    return {key: Source(key, row["url"], str(row["date"])) for key, row in raw["sources"].items()}


def _load_family(raw: Yaml) -> list[Model]:
    sources = read_sources(raw)
    tables = {
        key: _to_hyperparameters(table, sources)
        for key, table in raw.get("hyperparameters", {}).items()
    }
    limits = {
        key: _to_limits_by_type(table, sources) for key, table in raw.get("limits", {}).items()
    }
    return [_to_model(raw, row, sources, tables, limits) for row in raw["models"]]


def _to_hyperparameters(raw: Yaml, sources: dict[str, Source]) -> Mapping[str, Hyperparameter]:
    source, assumed = sources[raw["source"]], raw.get("assumed", False)
    return MappingProxyType(
        {
            name: Hyperparameter(name=name, source=source, assumed=assumed, **row)
            for name, row in raw["rows"].items()
        }
    )


def _to_limits_by_type(raw: Yaml, sources: dict[str, Source]) -> Mapping[str, Limits]:
    return MappingProxyType({kind: _to_limits(row, sources) for kind, row in raw.items()})


def _to_limits(row: Yaml, sources: dict[str, Source]) -> Limits:
    lists = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    media = {
        kind: MediaLimits(**limits | {"formats": tuple(limits["formats"])})
        for kind, limits in row.get("media", {}).items()
    }
    others = {name: sources[key] for name, key in row.get("other_sources", {}).items()}
    named = {"source": sources[row["source"]], "other_sources": others}
    return Limits(**row | lists | named | {"media": media})


def _to_tuples(raw: Yaml) -> Mapping[str, tuple[str, ...]]:
    """Return a mapping with its lists as tuples."""
    return MappingProxyType({key: tuple(values) for key, values in raw.items()})


def _to_model(
    family: Yaml,
    row: Yaml,
    sources: dict[str, Source],
    tables: Mapping[str, Mapping[str, Hyperparameter]],
    limits: Mapping[str, Mapping[str, Limits]],
) -> Model:
    hyperparameters = tables[row["hyperparameters"]] if "hyperparameters" in row else {}
    return Model(
        alias=row["alias"],
        title=row["title"],
        family=family["family"],
        customization_api=family.get("customization_api", "bedrock"),
        lifecycle=_to_lifecycle(row["lifecycle"], sources),
        bedrock_id=row.get("bedrock_id"),
        other_ids=tuple(row.get("other_ids", ())),
        customization_types=tuple(row["customization_types"]),
        formats=MappingProxyType(row.get("formats", {})),
        content=_to_tuples(row.get("content", {})),
        content_unsure=_to_tuples(row.get("content_unsure", {})),
        regions=tuple(row.get("regions", ())),
        hyperparameters=hyperparameters,
        early_stopping=row.get("early_stopping", False),
        limits=limits[row["limits"]] if "limits" in row else {},
        serving=tuple(row.get("serving", ())),
        prices=merge_prices(
            prices for item in row.get("prices", ()) for prices in _to_prices(item, sources)
        ),
        price_list=row.get("price_list"),
        teachers=tuple(row.get("teachers", ())),
        former_teachers=tuple(row.get("former_teachers", ())),
        inference_profiles=_to_tuples(row.get("inference_profiles", {})),
        in_region=tuple(row["in_region"]) if "in_region" in row else None,
        successor=row.get("successor"),
        weights=tuple(Weights(**item) for item in row.get("weights", ())),
        license=row.get("license"),
        parameters=row.get("parameters"),
        context=row.get("context"),
        sources=tuple(sources[key] for key in row["sources"]),
    )


def _to_prices(row: Yaml, sources: dict[str, Source]) -> Iterator[Prices]:
    """Yield the prices of one row for each of its Regions."""
    given = ("regions", "source", "certainty")
    amounts = {
        name: tuple(value) if isinstance(value, list) else value
        for name, value in row.items()
        if name not in given
    }
    for region in row["regions"]:
        yield Prices.of(amounts, sources[row["source"]], row["certainty"], region)


def _to_lifecycle(raw: Yaml, sources: dict[str, Source]) -> Lifecycle:
    date, legacy = (raw.get(key) for key in ("date", "legacy"))
    return Lifecycle(
        recorded=raw["state"],
        source=sources[raw["source"]],
        date=None if date is None else str(date),
        legacy=None if legacy is None else str(legacy),
        note=raw.get("note"),
    )
