"""The YAML files beside this one, as `Model` values. Read once."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cloudft.catalogue.model import (
    Hyperparameter,
    Lifecycle,
    Limits,
    Model,
    Prices,
    Source,
    Weights,
)

FOLDER = Path(__file__).parent
FAMILIES = (
    "amazon-nova",
    "amazon-titan",
    "meta-llama",
    "anthropic-claude",
    "cohere-command",
    "openai-compatible",
    "open-weight",
)
FACT_TABLES = ("custom-model-import", "sagemaker-instances")
"""Files of facts that are no model's; each has a reader of its own."""
LOCAL_TABLE = "local"


@lru_cache(maxsize=1)
def load_models() -> tuple[Model, ...]:
    """Every model of the catalogue, family by family, the newest of a family first."""
    return tuple(model for family in FAMILIES for model in _load_family(read_yaml(family)))


@lru_cache(maxsize=1)
def load_local_hyperparameters() -> Mapping[str, Hyperparameter]:
    """What the local trainer takes, whatever open weights it trains."""
    raw = read_yaml("open-weight")
    return _to_hyperparameters(raw["hyperparameters"][LOCAL_TABLE], read_sources(raw))


def read_yaml(name: str) -> dict[str, Any]:
    """One of the YAML files beside this one."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.load(text, Loader=loader)
    return data


def _load_family(raw: dict[str, Any]) -> list[Model]:
    sources = read_sources(raw)
    tables = {
        key: _to_hyperparameters(t, sources) for key, t in raw.get("hyperparameters", {}).items()
    }
    limits = {key: _to_limits_by_type(t, sources) for key, t in raw.get("limits", {}).items()}
    return [_to_model(raw["family"], row, sources, tables, limits) for row in raw["models"]]


def read_sources(raw: dict[str, Any]) -> dict[str, Source]:
    """The sources of a file by their keys."""
    return {key: Source(key, s["url"], str(s["date"])) for key, s in raw["sources"].items()}


def _to_hyperparameters(
    raw: dict[str, Any], sources: dict[str, Source]
) -> Mapping[str, Hyperparameter]:
    source, assumed = sources[raw["source"]], raw.get("assumed", False)
    return MappingProxyType(
        {
            name: Hyperparameter(name=name, source=source, assumed=assumed, **row)
            for name, row in raw["rows"].items()
        }
    )


def _to_limits_by_type(raw: dict[str, Any], sources: dict[str, Source]) -> Mapping[str, Limits]:
    return MappingProxyType({kind: _to_limits(row, sources) for kind, row in raw.items()})


def _to_limits(row: dict[str, Any], sources: dict[str, Source]) -> Limits:
    values = row | {name: tuple(row[name]) for name in ("reserved", "unsure") if name in row}
    return Limits(**values | {"source": sources[row["source"]]})


def _to_model(
    family: str,
    row: dict[str, Any],
    sources: dict[str, Source],
    tables: Mapping[str, Mapping[str, Hyperparameter]],
    limits: Mapping[str, Mapping[str, Limits]],
) -> Model:
    nothing: Mapping[str, Any] = MappingProxyType({})
    return Model(
        alias=row["alias"],
        title=row["title"],
        family=family,
        lifecycle=_to_lifecycle(row["lifecycle"], sources),
        bedrock_id=row.get("bedrock_id"),
        other_ids=tuple(row.get("other_ids", ())),
        customization_types=tuple(row["customization_types"]),
        formats=MappingProxyType(row.get("formats", {})),
        regions=tuple(row.get("regions", ())),
        hyperparameters=tables[row["hyperparameters"]] if "hyperparameters" in row else nothing,
        early_stopping=row.get("early_stopping", False),
        limits=limits[row["limits"]] if "limits" in row else nothing,
        serving=tuple(row.get("serving", ())),
        prices=_to_prices(row["prices"], sources) if "prices" in row else None,
        price_list=row.get("price_list"),
        teachers=tuple(row.get("teachers", ())),
        successor=row.get("successor"),
        weights=tuple(Weights(**item) for item in row.get("weights", ())),
        license=row.get("licence"),
        parameters=row.get("parameters"),
        context=row.get("context"),
        sources=tuple(sources[key] for key in row["sources"]),
    )


def _to_prices(row: dict[str, Any], sources: dict[str, Source]) -> Prices:
    pairs = {name: tuple(value) for name, value in row.items() if isinstance(value, list)}
    return Prices(**row | pairs | {"source": sources[row["source"]]})


def _to_lifecycle(raw: dict[str, Any], sources: dict[str, Source]) -> Lifecycle:
    date = raw.get("date")
    return Lifecycle(
        state=raw["state"],
        source=sources[raw["source"]],
        date=None if date is None else str(date),
        note=raw.get("note"),
    )
