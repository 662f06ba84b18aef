"""Instance types that SageMaker trains on, from sagemaker-instances.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from cloudft.catalogue.load import FOLDER, read_sources, read_yaml
from cloudft.catalogue.prices import Certainty
from cloudft.catalogue.source import Source
from cloudft.catalogue.stated_prices import read_stated_prices

GIB = 2**30


@dataclass(frozen=True)
class Instance:
    """An instance type.

    `gib` is the memory of one GPU. `nvme` is True where it has a local disk, which can't be
    encrypted with a key of the account's. `bfloat16` is True where its GPU computes bfloat16.
    """

    name: str
    gpu: str
    gpus: int
    gib: int
    nvme: bool
    source: Source
    bfloat16: bool = True

    @property
    def gpu_bytes(self) -> int:
        """Return the memory of one GPU in bytes."""
        return self.gib * GIB


@dataclass(frozen=True)
class HourlyPrice:
    """USD of an hour of an instance type on demand; `region` is None for a stated price."""

    usd: float
    source: Source
    region: str | None = None
    certainty: Certainty = "stated"

    def origin(self, region: str | None) -> str:
        """Return the source, and the Region of the price where it is not `region`."""
        if self.region in (None, region):
            return str(self.source)
        return f"{self.source} (the price of {self.region})"


@dataclass(frozen=True)
class InstanceTable:
    """Instance types by name, and the prices of each by Region."""

    by_name: Mapping[str, Instance]
    prices: Mapping[str, Mapping[str, HourlyPrice]]

    def hourly_price(self, name: str, region: str | None) -> HourlyPrice | None:
        """Return the price of a type in a Region, or in another where that one's is not known."""
        prices = self.prices.get(name, {})
        return prices.get(region or "") or next(iter(prices.values()), None)


def hourly_price(name: str | None, region: str | None = None) -> HourlyPrice | None:
    """Return the price of an hour of that type in a Region; None where no price is known.

    A price that CLOUDFT_HOME states wins over the table. Where the table has none of that Region,
    it is that of another, which `region` names.
    """
    stated = read_stated_prices().instances.get(name or "")
    if stated is not None:
        return HourlyPrice(stated.usd_per_hour, stated.price_source)
    return load_instances().hourly_price(name or "", region)


@lru_cache(maxsize=1)
def load_instances() -> InstanceTable:
    """Return the table."""
    raw = read_yaml(FOLDER / "sagemaker-instances.yaml")
    sources = read_sources(raw)
    rows = {
        name: Instance(name=name, **{**row, "source": sources[row["source"]]})
        for name, row in raw["instances"].items()
    }
    prices: dict[str, dict[str, HourlyPrice]] = {}
    for row in raw["prices"]:
        for name, usd in row["usd_per_hour"].items():
            price = HourlyPrice(usd, sources[row["source"]], row["region"], row["certainty"])
            prices.setdefault(name, {})[row["region"]] = price
    return InstanceTable(MappingProxyType(rows), MappingProxyType(prices))
