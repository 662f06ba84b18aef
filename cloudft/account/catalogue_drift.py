"""Compare the catalogue with an account's own list: which models exist, and what they support."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft import catalogue
from cloudft.aws.client import Aws, AwsLocation


@dataclass(frozen=True)
class CatalogueComparison:
    """One model: the catalogue's entry, the account's entry, and `same` or `drift`."""

    model: str
    catalogue: str
    account: str
    word: str


def compare_catalogue(location: Mapping[str, str | None]) -> list[CatalogueComparison]:
    """Return one comparison for each model that catalogue or account can customize in that Region.

    Raise CloudRefused and CloudUnreachable.
    """
    aws = Aws(AwsLocation(**location))
    response = aws.call("can't list the foundation models", "bedrock", "list_foundation_models")
    listed = {model["modelId"]: model for model in response["modelSummaries"]}
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
        expected = f"ACTIVE: {', '.join(kinds)}" if here else _absence(model, region)
        offer = listed.get(model.bedrock_id)
        account = _account_offer(offer) if offer else "not listed"
        same = account == expected if here else offer is None
        yield CatalogueComparison(model.alias, expected, account, "same" if same else "drift")


def _absence(model: catalogue.Model, region: str) -> str:
    if model.lifecycle.state == "end-of-life":
        return f"end of life {model.lifecycle.date or ''}".rstrip()
    return f"not in {region}"


def _account_offer(model: Mapping[str, Any]) -> str:
    state = model.get("modelLifecycle", {}).get("status", "ACTIVE")
    return f"{state}: {', '.join(sorted(model.get('customizationsSupported', ())))}"


def _list_uncatalogued(listed: Mapping[str, Any]) -> Iterator[CatalogueComparison]:
    """Yield text models that the account can customize and the catalogue lacks."""
    known = {i for m in catalogue.load_models() for i in (m.bedrock_id, *m.other_ids)}
    for name, model in listed.items():
        text = "TEXT" in model.get("outputModalities", ())
        if name not in known and text and model.get("customizationsSupported"):
            yield CatalogueComparison(name, "not in the catalogue", _account_offer(model), "drift")
