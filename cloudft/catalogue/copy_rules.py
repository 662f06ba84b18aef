"""Rules of copying and sharing custom models, from custom-model-copy.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from cloudft.catalogue.load import FOLDER, read_sources, read_yaml
from cloudft.catalogue.source import Source


@dataclass(frozen=True)
class CopyRules:
    """Regions by the alias of the base model: those to copy to, and those to share from.

    `distilled_unsure` names the families of which a source doubts that distilled models are copied.
    """

    copy_to: Mapping[str, tuple[str, ...]]
    share_from: Mapping[str, tuple[str, ...]]
    distilled_unsure: tuple[str, ...]
    copy_source: Source
    share_source: Source
    distilled_source: Source


@lru_cache(maxsize=1)
def load_copy_rules() -> CopyRules:
    """Return the rules."""
    raw = read_yaml(FOLDER / "custom-model-copy.yaml")
    sources = read_sources(raw)
    return CopyRules(
        copy_to={alias: tuple(regions) for alias, regions in raw["copy_to"].items()},
        share_from={alias: tuple(regions) for alias, regions in raw["share_from"].items()},
        distilled_unsure=tuple(raw["distilled_unsure"]),
        copy_source=sources["copy"],
        share_source=sources["share"],
        distilled_source=sources["distilled"],
    )
