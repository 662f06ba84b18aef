"""The catalogue beside what an account says: which models are there, and what they can do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation


@dataclass(frozen=True)
class CatalogueComparison:
    """One model: what the catalogue says, what the account says, and `same` or `drift`."""

    model: str
    catalogue: str
    account: str
    word: str


def compare_catalogue(place: Mapping[str, Any]) -> list[CatalogueComparison]:
    """A line for each model that either knows to be customized in that Region.

    Raises AwsRefused and AwsUnreachable.
    """
    aws = Aws(AwsLocation(**place))
    answer = aws.call("models can't be listed", "bedrock", "list_foundation_models")
    listed = {model["modelId"]: model for model in answer["modelSummaries"]}
    region = aws.client("bedrock").meta.region_name
    return [*_compare_catalogued(listed, region), *_list_uncatalogued(listed)]


def _listed_types(model: catalogue.Model) -> list[str]:
    """Return the model's customization types that an account's list can name."""
    types = sorted(model.customization_types)
    return [name for name in types if catalogue.CUSTOMIZATION_TYPES[name].is_listed]


def _compare_catalogued(listed: Mapping[str, Any], region: str) -> Iterator[CatalogueComparison]:
    for model in catalogue.load_models():
        kinds = _listed_types(model)
        if model.bedrock_id is None or not kinds:
            continue
        here = region in model.regions and model.lifecycle.state != "end-of-life"
        says = f"ACTIVE: {', '.join(kinds)}" if here else _absence(model, region)
        found = listed.get(model.bedrock_id)
        told = _account_offer(found) if found else "not listed"
        same = told == says if here else found is None
        yield CatalogueComparison(model.alias, says, told, "same" if same else "drift")


def _absence(model: catalogue.Model, region: str) -> str:
    if model.lifecycle.state == "end-of-life":
        return f"end of life {model.lifecycle.date or ''}".rstrip()
    return f"not in {region}"


def _account_offer(model: Mapping[str, Any]) -> str:
    state = model.get("modelLifecycle", {}).get("status", "ACTIVE")
    return f"{state}: {', '.join(sorted(model.get('customizationsSupported', ())))}"


def _list_uncatalogued(listed: Mapping[str, Any]) -> Iterator[CatalogueComparison]:
    """Text models that the account lets customize and the catalogue lacks."""
    known = {i for m in catalogue.load_models() for i in (m.bedrock_id, *m.other_ids)}
    for name, model in listed.items():
        text = "TEXT" in model.get("outputModalities", ())
        if name not in known and text and model.get("customizationsSupported"):
            yield CatalogueComparison(name, "not there", _account_offer(model), "drift")
