"""The models that SageMaker's serverless customization tunes, from sagemaker-serverless.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from cloudft.catalogue.customization_types import CUSTOMIZATION_TYPES
from cloudft.catalogue.find import find_model
from cloudft.catalogue.load import FOLDER, Yaml, read_sources, read_yaml
from cloudft.catalogue.model import Model
from cloudft.catalogue.source import Source
from cloudft.errors import UnknownModel

NOVA_GROUP = "nova"
TECHNIQUES = ("SFT", "DPO", "RLVR", "RLAIF")
"""The techniques of the API (botocore 1.44.8, CustomizationTechnique)."""
SERVICE = "SageMaker's serverless customization"
GUIDE = "https://docs.aws.amazon.com/sagemaker/latest/dg/customize-model.html"
TRAINERS = {name: f"{name}Trainer" for name in TECHNIQUES}
"""Technique -> its class in the SageMaker SDK (sagemaker-train 1.27.0)."""


@dataclass(frozen=True)
class ServerlessModel:
    """A model of SageMaker's public hub.

    `hub` is the name of its content in the hub. `lora` and `full` are the techniques that tune an
    adapter and all weights; both are empty where the source lists the model without techniques.
    `names` are its id on the Hugging Face hub and its alias in the catalogue. `regions_source`
    says where the Regions are from.
    """

    hub: str
    group: str
    names: tuple[str, ...]
    lora: tuple[str, ...]
    full: tuple[str, ...]
    regions: tuple[str, ...]
    source: Source
    regions_source: Source

    @property
    def is_nova(self) -> bool:
        """Return whether it is an Amazon Nova model, whose weights AWS keeps."""
        return self.group == NOVA_GROUP

    @property
    def is_open_weight(self) -> bool:
        """Return whether its tuned weights are files in the account's bucket."""
        return not self.is_nova

    @property
    def techniques(self) -> tuple[str, ...]:
        """Return the techniques, in the order of the API's enum."""
        known = {*self.lora, *self.full}
        return tuple(name for name in TECHNIQUES if name in known)


@dataclass(frozen=True)
class ServerlessCatalogue:
    """All of the models by the name of their content, and what is known of the price.

    `billed` maps a technique to what is billed: tokens or hours. No source has a price.
    """

    by_hub: Mapping[str, ServerlessModel]
    billed: Mapping[str, str]
    billed_source: Source
    price_list: str


@lru_cache(maxsize=1)
def load_serverless() -> ServerlessCatalogue:
    """Return what sagemaker-serverless.yaml lists."""
    raw = read_yaml(FOLDER / "sagemaker-serverless.yaml")
    sources = read_sources(raw)
    models = [
        _to_model(row, name, group, sources)
        for name, group in raw["groups"].items()
        for row in group["models"]
    ]
    return ServerlessCatalogue(
        {model.hub: model for model in models},
        dict(raw["billed"]),
        sources[raw["billed_source"]],
        raw["price_list"],
    )


def _to_model(row: Yaml, name: str, group: Yaml, sources: Mapping[str, Source]) -> ServerlessModel:
    return ServerlessModel(
        hub=row["hub"],
        group=name,
        names=tuple(row["names"]),
        lora=tuple(row.get("lora", ())),
        full=tuple(row.get("full", ())),
        regions=tuple(group["regions"]),
        source=sources[str(row.get("source", group["source"]))],
        regions_source=sources[group["regions_source"]],
    )


def find_serverless_model(model: Model) -> ServerlessModel | None:
    """Return the hub's model of a base model, by its alias or its hub id; None if there is none."""
    hub_ids = {weights.hub_id.lower() for weights in model.weights if weights.hub_id}
    known_as = {model.alias.lower(), *hub_ids}
    for listed in load_serverless().by_hub.values():
        if known_as & {name.lower() for name in listed.names}:
            return listed
    return None


def techniques_for(customization_type: str) -> tuple[str, ...]:
    """Return the techniques that do what a customization type does; none for one not known."""
    row = CUSTOMIZATION_TYPES.get(customization_type)
    return () if row is None else row.sagemaker_techniques


def describe_offer(listed: ServerlessModel, techniques: Sequence[str]) -> str:
    """Return what the service offers for a model: techniques, Regions, what is billed, weights."""
    known = load_serverless()
    able = [name for name in techniques if name in listed.techniques]
    by = f" by {_any_of(able)}" if able else ""
    regions = f"in {_any_of(listed.regions)} ({listed.source}; Regions: {listed.regions_source})"
    units = {name: known.billed[name] for name in able if name in known.billed}
    billed = [f"{name} by the {unit[:-1]}" for name, unit in units.items()]
    price = f"it bills {', '.join(billed)}" if billed else "what it bills is in no source here"
    weights = "; the tuned weights are yours, in S3" if listed.is_open_weight else ""
    return (
        f"{SERVICE} tunes {listed.hub}{by} {regions}; {price}, at prices that no source here has"
        f" (see {known.price_list}){weights}"
    )


def owned_weights_route(base_model: str) -> str:
    """Return how to get tuned weights of a base model by the service; empty if it can't."""
    try:
        listed = find_serverless_model(find_model(base_model))
    except UnknownModel:
        return ""
    if listed is None or not listed.is_open_weight or "SFT" not in listed.techniques:
        return ""
    return f"to own the weights, {offer_fix(listed, ('SFT',))}"


def offer_fix(listed: ServerlessModel, techniques: Sequence[str]) -> str:
    """Return how to use the service: by cloudft for SFT, else by the SageMaker SDK."""
    if "SFT" in techniques and "SFT" in listed.techniques:
        [name, *_] = listed.names
        return (
            f"set `base_model: {name}` and `sagemaker.serverless`, and submit with --backend"
            " sagemaker (docs/how-to/train-on-sagemaker.md)."
        )
    able = [name for name in techniques if name in listed.techniques]
    trainers = _any_of([TRAINERS[name] for name in able or techniques])
    return f"cloudft starts no such job: use {trainers} of `pip install sagemaker` ({GUIDE})."


def _any_of(words: Sequence[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} or {last}" if first else last
