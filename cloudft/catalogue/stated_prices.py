"""Prices that the user states in CLOUDFT_HOME/prices.yaml; they win over the catalogue's.

    models:
      nova-lite: {training_per_1k_tokens: 0.002, source: "https://...", date: 2026-11-29}
    instances:
      ml.p5.48xlarge: {usd_per_hour: 63.296, source: "https://...", date: 2026-11-29}
    import_units:
      v1.0: {unit_minute: 0.05718, unit_month: 1.95, source: "https://...", date: 2026-11-29}

All amounts are in USD. Each entry has the source of its prices and the date when they were read.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from cloudft.catalogue.model import Model
from cloudft.catalogue.prices import PRICE_NAMES, Prices
from cloudft.catalogue.source import Source
from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.home import Home

Amount = Annotated[float, msgspec.Meta(gt=0)]
Pair = tuple[Amount, Amount]
STATED_SOURCE = "stated"
"""Key of a source that the user stated."""
EXAMPLE = (
    'models: {nova-lite: {training_per_1k_tokens: 0.002, source: "https://aws.amazon.com/bedrock/'
    'pricing", date: 2026-11-29}}'
)


class _PriceEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, msgspec.Meta(min_length=1)]
    date: datetime.date

    @property
    def price_source(self) -> Source:
        """Return the source of the prices."""
        return Source(STATED_SOURCE, self.source, self.date.isoformat())


class ModelPrices(_PriceEntry, kw_only=True):
    """Prices of a model on Bedrock; the fields are PRICE_NAMES."""

    training_per_1k_tokens: Amount | None = None
    reinforcement_hour: Amount | None = None
    storage_per_month: Amount | None = None
    provisioned_unit_hour: Amount | None = None
    provisioned_unit_hour_one_month: Amount | None = None
    provisioned_unit_hour_six_months: Amount | None = None
    base_per_1k_tokens: Pair | None = None
    global_per_1k_tokens: Pair | None = None
    batch_per_1k_tokens: Pair | None = None
    tuned_per_1k_tokens: Pair | None = None
    tuned_cache_read_per_1k_tokens: Amount | None = None


class InstancePrice(_PriceEntry, kw_only=True):
    """Price of an instance type."""

    usd_per_hour: Amount


class UnitPriceEntry(_PriceEntry, kw_only=True):
    """Prices of a custom model unit."""

    unit_minute: Amount | None = None
    unit_month: Amount | None = None


@dataclass(frozen=True)
class StatedPrices:
    """Stated prices by the names in the file."""

    models: Mapping[str, ModelPrices]
    instances: Mapping[str, InstancePrice]
    import_units: Mapping[str, UnitPriceEntry]


NO_STATED_PRICES = StatedPrices({}, {}, {})
Entry = TypeVar("Entry", bound=_PriceEntry)


def read_stated_prices() -> StatedPrices:
    """Return the prices that CLOUDFT_HOME states now; NO_STATED_PRICES where it has no such file.

    Raise UsageError that names the field of an invalid entry, and StoreError.
    """
    path = Home.from_environ().prices
    with as_store_error("the stated prices can't be read", path):
        try:
            stat = path.stat()
        except FileNotFoundError:
            return NO_STATED_PRICES
        return _read_file(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=1)
def _read_file(path: Path, changed_ns: int, size: int) -> StatedPrices:
    """Read the file; `changed_ns` and `size` make a changed file another entry of the cache."""
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid_file(path, None, " ".join(str(error).split())) from error
    known = [field.name for field in fields(StatedPrices)]
    for name, section in raw.items() if isinstance(raw, dict) else [("", raw)]:
        if name not in known or not isinstance(section, dict):
            reason = f"it must be a mapping of {', '.join(known)}"
            raise _invalid_file(path, str(name) or None, reason)
    return StatedPrices(
        _entries(raw, "models", ModelPrices, path),
        _entries(raw, "instances", InstancePrice, path),
        _entries(raw, "import_units", UnitPriceEntry, path),
    )


def _entries(
    raw: Mapping[str, Mapping[str, object]], section: str, as_type: type[Entry], path: Path
) -> dict[str, Entry]:
    entries = {}
    for name, entry in raw.get(section, {}).items():
        try:
            entries[str(name)] = msgspec.convert(entry, as_type)
        except msgspec.ValidationError as error:
            reason, _, field = str(error).partition(" - at `$")
            raise _invalid_file(path, f"{section}.{name}{field.rstrip('`')}", reason) from error
    return entries


def _invalid_file(path: Path, field: str | None, reason: str) -> UsageError:
    message = f"{path.name} can't be used: {reason[:1].lower()}{reason[1:]}"
    return UsageError(message, file=str(path), field=field, fix=f"write `{EXAMPLE}`.")


def with_prices(model: Model, amounts: Mapping[str, Any], source: Source) -> Model:
    """Return the model with stated prices.

    `amounts` has the names of PRICE_NAMES; one that is None is not stated, and stays as it is.
    """
    stated = Prices.of(amounts, source, "stated")
    if not stated.by_name:
        return model
    known = model.stated_prices
    return replace(model, stated_prices=stated if known is None else known.updated(stated))


def with_stated_prices(model: Model, names: Mapping[str, Model]) -> Model:
    """Return the model with the prices that CLOUDFT_HOME states for it, by any of its `names`.

    Raise UsageError for a price of a model that the catalogue lacks.
    """
    for name, entry in read_stated_prices().models.items():
        if name not in names:
            reason = f"the catalogue has no model {name}"
            raise _invalid_file(Home.from_environ().prices, f"models.{name}", reason)
        if names[name].alias == model.alias:
            amounts = {key: getattr(entry, key) for key in PRICE_NAMES}
            model = with_prices(model, amounts, entry.price_source)
    return model
