"""Read a model's recipes in SageMaker's public hub. Reads only.

The document of a hub content lists its recipes (sagemaker-train 1.27.0, finetune_utils.py); a
recipe names an object in AWS's bucket with its hyperparameters: type, range, default.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from cloudft.aws.client import Aws
from cloudft.aws.s3 import read_object, split_s3_uri
from cloudft.backends.sagemaker.serverless.request import HUB
from cloudft.errors import CloudRefused
from cloudft.storage.documents import decode

MAX_BYTES = 4 * 1024 * 1024
"""The largest object with hyperparameters that is read."""


class Recipe(msgspec.Struct, rename="pascal"):
    """A recipe: its technique, LORA or none, and the longest records it is for (`8K`)."""

    customization_technique: str = ""
    peft: str | None = None
    sequence_length: str | None = None
    serverless_metering_type: str | None = None
    smtj_override_params_s3_uri: str | None = msgspec.field(
        default=None, name="SmtjOverrideParamsS3Uri"
    )


class HubDocument(msgspec.Struct, rename="pascal"):
    """What is read of a model's document. `gated_bucket`: its license must be accepted."""

    recipe_collection: list[Recipe] = []
    gated_bucket: bool = False


class Setting(msgspec.Struct):
    """What a recipe says of a hyperparameter."""

    type: str | None = None
    min: float | None = None
    max: float | None = None
    enum: list[Any] | None = None


def read_document(aws: Aws, name: str) -> HubDocument:
    """Return the document of a model in the hub.

    Raise ResourceNotFound for a name that the hub does not have, CloudRefused, CloudUnreachable,
    and BadDocument.
    """
    what = f"can't read {name} in {HUB}"
    named = {"HubName": HUB, "HubContentType": "Model", "HubContentName": name}
    response = aws.call(what, "sagemaker", "describe_hub_content", **named)
    content = str(response["HubContentDocument"]).encode()
    return decode(content, HubDocument, file=f"{HUB}/{name}")


def read_settings(aws: Aws, recipe: Recipe) -> Mapping[str, Setting]:
    """Return the hyperparameters that a recipe takes, by name; none where it names no object.

    Raise CloudRefused, CloudUnreachable and BadDocument.
    """
    uri = recipe.smtj_override_params_s3_uri
    if not uri or not uri.startswith("s3://") or "{" in uri:
        return {}
    bucket, key = split_s3_uri(uri)
    content = read_object(aws, {"Bucket": bucket}, key, MAX_BYTES)
    raw = decode(content, dict[str, Any], file=uri)
    return {
        name: msgspec.convert(value, Setting)
        for name, value in raw.items()
        if isinstance(value, dict)
    }


def matching_recipes(
    document: HubDocument, technique: str, peft: str | None, sequence_length: str | None
) -> list[Recipe]:
    """Return the recipes of a technique for an adapter or all weights, of that length if any."""
    return [
        recipe
        for recipe in document.recipe_collection
        if recipe.customization_technique == technique
        and (recipe.peft or None) == peft
        and sequence_length in (None, recipe.sequence_length)
    ]


def is_missing(error: CloudRefused) -> bool:
    """Return whether the hub answers that it has no such content.

    Its code is ResourceNotFound; some answers have it in a ValidationException.
    """
    return "ResourceNotFound" in error.message or "does not exist" in error.message
