"""The id by which a base model answers on demand: its own, or that of an inference profile."""

from __future__ import annotations

from cloudft.catalogue.find import find_catalogue_model
from cloudft.catalogue.model import Model
from cloudft.catalogue.profile_ids import GLOBAL, on_demand_id, profile_id

AREAS_BY_REGION = (
    ("us-gov-", ("us-gov",)),
    ("us-", ("us",)),
    ("ca-", ("ca", "us")),
    ("eu-", ("eu",)),
    ("il-", ("eu",)),
    ("ap-northeast-1", ("jp", "apac")),
    ("ap-northeast-3", ("jp", "apac")),
    ("ap-southeast-2", ("au", "apac")),
    ("ap-southeast-4", ("au", "apac")),
    ("ap-", ("apac",)),
)
"""Beginning of a Region's name -> the areas around it, the nearest first. `global` comes after
them, except in GovCloud. Source: the cards of the models in the Bedrock user guide, 2026-10."""


def profile_areas(region: str) -> tuple[str, ...]:
    """Return the areas of the inference profiles of a Region, the nearest first."""
    areas = next((areas for start, areas in AREAS_BY_REGION if region.startswith(start)), ())
    return areas if areas == ("us-gov",) else (*areas, GLOBAL)


def callable_areas(model: Model, region: str) -> tuple[str, ...]:
    """Return the areas whose profile of a model can be called in a Region, the nearest first.

    Whether a Region is one of a profile's source Regions is known where the model's card was read.
    """
    offered = model.inference_profiles
    return tuple(
        area
        for area in profile_areas(region)
        if area in offered and (not offered[area] or region in offered[area])
    )


def answers_in_region(model: Model, region: str) -> bool:
    """Return whether a Region answers to the model's own id; True where no source was read."""
    return model.in_region is None or region in model.in_region


def inference_id(identifier: str, region: str) -> str:
    """Return the id to call a base model by in a Region: a profile's where the model needs one.

    This is the catalogue's word; an account's own list of profiles may have others.
    """
    own = on_demand_id(identifier)
    model = find_catalogue_model(own)
    if model is None or answers_in_region(model, region):
        return own
    areas = callable_areas(model, region)
    return profile_id(areas[0], own) if areas else own
