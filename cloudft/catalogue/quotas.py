"""Quotas of Amazon Bedrock with their codes and AWS's defaults, from quotas.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from cloudft.catalogue.load import FOLDER, read_sources, read_yaml
from cloudft.catalogue.source import Source

Counted = Literal[
    "custom-models",
    "scheduled-jobs",
    "deployments",
    "creating-deployments",
    "imported-models",
    "import-jobs",
    "records",
    "requests-per-minute",
    "tokens-per-minute",
]


@dataclass(frozen=True)
class Quota:
    """A quota. `default` is AWS's, of an account whose quota nobody raised.

    `code` is Service Quotas' code, None where no source has one. `model` is the alias of the model
    that the quota is for, `customization_type` the type; None where it is for all.
    """

    counts: Counted
    name: str
    default: float
    adjustable: bool
    source: Source
    code: str | None = None
    model: str | None = None
    customization_type: str | None = None


SERVICE_CODE = "bedrock"
"""Service Quotas' code of Amazon Bedrock."""


@lru_cache(maxsize=1)
def load_quotas() -> tuple[Quota, ...]:
    """Return every quota of the catalogue, in the file's order."""
    raw = read_yaml(FOLDER / "quotas.yaml")
    sources = read_sources(raw)
    return tuple(Quota(**row | {"source": sources[row["source"]]}) for row in raw["quotas"])


def find_quota(
    counts: Counted, model: str | None = None, customization_type: str | None = None
) -> Quota | None:
    """Return the quota that counts that, of a model and a type; None where no source has one."""
    key = (counts, model, customization_type)
    quotas = load_quotas()
    return next((q for q in quotas if (q.counts, q.model, q.customization_type) == key), None)


def require_quota(counts: Counted) -> Quota:
    """Return the quota of an account that counts that. Raise KeyError where there is none."""
    quota = find_quota(counts)
    if quota is None:
        raise KeyError(counts)
    return quota
