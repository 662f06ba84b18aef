"""The id by which a base model answers on demand: its own, or that of an inference profile."""

from __future__ import annotations

from cloudft.catalogue.find import find_catalogue_model

AREAS = (
    ("us-gov-", ("us-gov",)),
    ("us-", ("us", "global")),
    ("ca-", ("us", "global")),
    ("eu-", ("eu", "global")),
    ("il-", ("eu", "global")),
    ("ap-northeast-1", ("jp", "apac", "global")),
    ("ap-northeast-3", ("jp", "apac", "global")),
    ("ap-southeast-2", ("au", "apac", "global")),
    ("ap-southeast-4", ("au", "apac", "global")),
    ("ap-", ("apac", "global")),
)
"""Beginning of a Region's name -> the areas of the profiles that can be called there, the nearest
first. Source: the cards of the models in the Bedrock user guide, 2026-10."""


def profile_areas(region: str) -> tuple[str, ...]:
    """Return the areas of the inference profiles of a Region, the nearest first."""
    return next((areas for start, areas in AREAS if region.startswith(start)), ("global",))


def on_demand_id(identifier: str) -> str:
    """Return a base model's id on demand: its id or ARN without customization's context suffix."""
    name = identifier.rpartition("/")[2]
    head, _, suffix = name.rpartition(":")
    return head if suffix.endswith("k") else name


def inference_id(identifier: str, region: str) -> str:
    """Return the id to call a base model by in a Region: a profile's where the model needs one."""
    own = on_demand_id(identifier)
    model = find_catalogue_model(own)
    if model is None or model.in_region is None or region in model.in_region:
        return own
    offered = [area for area in profile_areas(region) if area in model.inference_profiles]
    return f"{offered[0]}.{own}" if offered else own
