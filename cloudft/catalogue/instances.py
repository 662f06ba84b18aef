"""Instance types that SageMaker trains on, from sagemaker-instances.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cloudft.catalogue.load import FOLDER, read_sources, read_yaml
from cloudft.catalogue.model import Source
from cloudft.catalogue.stated_prices import read_stated_prices

GIB = 2**30


@dataclass(frozen=True)
class Instance:
    """An instance type.

    `gib` is the memory of one GPU; `usd_per_hour` is on demand, None if unknown. `nvme` is
    True where it has a local disk, which can't be encrypted with a key of the account's.
    """

    name: str
    gpu: str
    gpus: int
    gib: int
    nvme: bool
    usd_per_hour: float | None
    source: Source

    @property
    def gpu_bytes(self) -> int:
        """Return the memory of one GPU in bytes."""
        return self.gib * GIB


@dataclass(frozen=True)
class InstanceTable:
    """Instance types by name, and the source and Region of their prices."""

    by_name: Mapping[str, Instance]
    price_source: Source
    price_region: str


def hourly_price(name: str | None) -> tuple[float, Source] | None:
    """Return USD of an hour of that type and its source; None where no price is known.

    A price that CLOUDFT_HOME states wins over the table.
    """
    stated = read_stated_prices().instances.get(name or "")
    if stated is not None:
        return stated.usd_per_hour, stated.price_source
    table = load_instances()
    instance = table.by_name.get(name or "")
    if instance is None or instance.usd_per_hour is None:
        return None
    return instance.usd_per_hour, table.price_source


@lru_cache(maxsize=1)
def load_instances() -> InstanceTable:
    """Return the table."""
    raw = read_yaml(FOLDER / "sagemaker-instances.yaml")
    sources = read_sources(raw)
    rows = {
        name: Instance(name=name, **{**row, "source": sources[row["source"]]})
        for name, row in raw["instances"].items()
    }
    return InstanceTable(MappingProxyType(rows), sources[raw["price_source"]], raw["price_region"])
