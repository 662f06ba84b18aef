"""Prices of the services beside Bedrock and SageMaker that a job uses, from service-prices.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cloudft.catalogue.load import FOLDER, read_sources, read_yaml
from cloudft.catalogue.prices import Certainty
from cloudft.catalogue.source import Source

S3_GIGABYTE_MONTH = "s3_gigabyte_month"
KMS_KEY_MONTH = "kms_key_month"


@dataclass(frozen=True)
class ServicePrice:
    """A price in USD. No `regions`: it is the same in every Region."""

    usd: float
    regions: tuple[str, ...]
    source: Source
    certainty: Certainty

    def is_of(self, region: str | None) -> bool:
        """Return whether this is the price in that Region."""
        return not self.regions or region in self.regions


@lru_cache(maxsize=1)
def load_service_prices() -> Mapping[str, ServicePrice]:
    """Return the prices by their names."""
    raw = read_yaml(FOLDER / "service-prices.yaml")
    sources = read_sources(raw)
    return {
        name: ServicePrice(
            row["usd"], tuple(row["regions"]), sources[row["source"]], row["certainty"]
        )
        for name, row in raw["prices"].items()
    }
