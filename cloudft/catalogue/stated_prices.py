"""Prices that a person states, above those of the catalogue: CLOUDFT_HOME/prices.yaml.

    models:
      nova-lite: {training_per_1k_tokens: 0.002, source: "https://...", date: 2026-11-29}
    instances:
      ml.p5.48xlarge: {usd_per_hour: 63.296, source: "https://...", date: 2026-11-29}
    import_units:
      v1.0: {unit_minute: 0.05718, unit_month: 1.95, source: "https://...", date: 2026-11-29}

All amounts are USD. Each entry says where its prices were read, and when.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from cloudft.catalogue.model import Model, Prices, Source
from cloudft.errors import UsageError
from cloudft.storage.atomic_files import as_store_error
from cloudft.storage.home import Home

Amount = Annotated[float, msgspec.Meta(gt=0)]
Pair = tuple[Amount, Amount]
STATED_SOURCE = "stated"
"""The key of a source that a person has named."""
EXAMPLE = (
    'models: {nova-lite: {training_per_1k_tokens: 0.002, source: "https://aws.amazon.com/bedrock/'
    'pricing", date: 2026-11-29}}'
)


class _PriceEntry(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    source: Annotated[str, msgspec.Meta(min_length=1)]
    date: datetime.date

    @property
    def price_source(self) -> Source:
        """Where the prices were read."""
        return Source(STATED_SOURCE, self.source, self.date.isoformat())


class ModelPrices(_PriceEntry, kw_only=True):
    """Prices of one model on Bedrock; the fields are those of `Prices`."""

    training_per_1k_tokens: Amount | None = None
    storage_per_month: Amount | None = None
    provisioned_unit_hour: Amount | None = None
    base_per_1k_tokens: Pair | None = None
    tuned_per_1k_tokens: Pair | None = None


class InstancePrice(_PriceEntry, kw_only=True):
    """The price of one type of machine."""

    usd_per_hour: Amount


class UnitPriceEntry(_PriceEntry, kw_only=True):
    """Prices of a custom model unit."""

    unit_minute: Amount | None = None
    unit_month: Amount | None = None


@dataclass(frozen=True)
class StatedPrices:
    """All of them, by the names that the file gives."""

    models: Mapping[str, ModelPrices]
    instances: Mapping[str, InstancePrice]
    import_units: Mapping[str, UnitPriceEntry]


NO_STATED_PRICES = StatedPrices({}, {}, {})
Entry = TypeVar("Entry", bound=_PriceEntry)


def read_stated_prices() -> StatedPrices:
    """Return what CLOUDFT_HOME states now; nothing where it has no such file.

    Raise UsageError that names the field of what can't be used, StoreError.
    """
    path = Home.from_environ().prices
    with as_store_error("the stated prices can't be read", path):
        try:
            seen = path.stat()
        except FileNotFoundError:
            return NO_STATED_PRICES
        return _read_file(path, seen.st_mtime_ns, seen.st_size)


@lru_cache(maxsize=1)
def _read_file(path: Path, changed_ns: int, size: int) -> StatedPrices:
    import yaml

    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise _invalid_file(path, None, " ".join(str(error).split())) from error
    known = [field.name for field in fields(StatedPrices)]
    for name, section in raw.items() if isinstance(raw, dict) else [("", raw)]:
        if name not in known or not isinstance(section, dict):
            raise _invalid_file(
                path, str(name) or None, f"a mapping of {', '.join(known)} is wanted"
            )
    return StatedPrices(
        _entries(raw, "models", ModelPrices, path),
        _entries(raw, "instances", InstancePrice, path),
        _entries(raw, "import_units", UnitPriceEntry, path),
    )


def _entries(
    raw: Mapping[str, Any], section: str, as_type: type[Entry], path: Path
) -> dict[str, Entry]:
    found = {}
    for name, entry in raw.get(section, {}).items():
        try:
            found[str(name)] = msgspec.convert(entry, as_type)
        except msgspec.ValidationError as error:
            what, _, where = str(error).partition(" - at `$")
            raise _invalid_file(path, f"{section}.{name}{where.rstrip('`')}", what) from error
    return found


def _invalid_file(path: Path, field: str | None, reason: str) -> UsageError:
    message = f"{path.name} can't be used: {reason[:1].lower()}{reason[1:]}"
    return UsageError(message, file=str(path), field=field, fix=f"write `{EXAMPLE}`.")


def with_prices(model: Model, amounts: Mapping[str, Any], source: Source) -> Model:
    """Return the model with these amounts (by the fields of `Prices`; None: not stated)."""
    given = {name: value for name, value in amounts.items() if value is not None}
    if not given:
        return model
    before = model.prices
    if before is None:
        return replace(model, prices=Prices(source=source, stated=frozenset(given), **given))
    both = replace(source, url=f"{before.source}; stated: {source.url}")
    names = before.stated | given.keys()
    return replace(model, prices=replace(before, source=both, stated=names, **given))


def with_stated_prices(model: Model, names: Mapping[str, Model]) -> Model:
    """Return the model with the prices that CLOUDFT_HOME states for it, under any of its `names`.

    Raise UsageError for a price of a model that the catalogue lacks.
    """
    for name, entry in read_stated_prices().models.items():
        if name not in names:
            what = f"there is no model {name} to have a price"
            raise _invalid_file(Home.from_environ().prices, f"models.{name}", what)
        if names[name].alias == model.alias:
            amounts = {key: getattr(entry, key) for key in PRICE_FIELDS}
            model = with_prices(model, amounts, entry.price_source)
    return model


PRICE_FIELDS = tuple(
    name for name in ModelPrices.__struct_fields__ if name not in ("source", "date")
)
