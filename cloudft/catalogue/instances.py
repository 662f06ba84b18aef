"""The instances that SageMaker trains on, from sagemaker-instances.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cloudft.catalogue.load import read_sources, read_yaml
from cloudft.catalogue.model import Source
from cloudft.catalogue.stated_prices import read_stated_prices

GIB = 2**30


@dataclass(frozen=True)
class Instance:
    """One type. `gib` is the memory of one GPU; `usd_per_hour` on demand, None where unknown.

    `nvme`: it has a local disk, which can't be encrypted by a key of one's own.
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
        """Memory of one GPU."""
        return self.gib * GIB


@dataclass(frozen=True)
class InstanceTable:
    """All of them by name, and where and for which Region the prices were read."""

    by_name: Mapping[str, Instance]
    price_source: Source
    price_region: str


def hourly_price(name: str | None) -> tuple[float, Source] | None:
    """Return USD of an hour of that type, and where it was read; None where no price is known.

    What CLOUDFT_HOME states stands above the table.
    """
    own = read_stated_prices().instances.get(name or "")
    if own is not None:
        return own.usd_per_hour, own.price_source
    table = load_instances()
    known = table.by_name.get(name or "")
    if known is None or known.usd_per_hour is None:
        return None
    return known.usd_per_hour, table.price_source


@lru_cache(maxsize=1)
def load_instances() -> InstanceTable:
    """The table."""
    raw = read_yaml("sagemaker-instances")
    sources = read_sources(raw)
    rows = {
        name: Instance(name=name, **{**row, "source": sources[row["source"]]})
        for name, row in raw["instances"].items()
    }
    return InstanceTable(MappingProxyType(rows), sources[raw["price_source"]], raw["price_region"])
