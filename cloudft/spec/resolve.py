"""List every value of a job with its origin, and build the job file's JSON Schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cloudft.catalogue import load_models
from cloudft.spec.load import LoadedJob
from cloudft.spec.merge import Origin, sort_in_file_order
from cloudft.spec.sections import job_model
from cloudft.spec.yaml_source import FieldPath, flatten

if TYPE_CHECKING:
    from pydantic.json_schema import JsonSchemaValue

PATH_FIELDS = {("data", name) for name in ("train", "validation", "test")} | {
    ("data", "mix", "path")
}
SCHEMA_ID = "urn:cloudft:job-file:1"


@dataclass(frozen=True)
class ResolvedValue:
    """One leaf of the job: dotted name, value as plain data, and where it came from."""

    field: str
    value: object
    origin: Origin


def resolve_values(loaded: LoadedJob) -> list[ResolvedValue]:
    """Return every leaf in the job file's order, with the catalogue's hyperparameters filled in.

    A section that is registered with `show_unset=False` is left out when nothing of it was given.
    """
    values: dict[FieldPath, object] = dict(flatten(loaded.spec.model_dump()))
    for name, row in loaded.model.hyperparameters.items():
        values.setdefault(("hyperparameters", name), row.default)
    names = ((key, ".".join(key)) for key in sort_in_file_order(values))
    return [
        ResolvedValue(name, _plain(key, values[key]), loaded.origins[name])
        for key, name in names
        if name in loaded.origins
    ]


def _plain(key: FieldPath, value: object) -> object:
    """Return a value as a person would write it: a single path bare, tuples as lists."""
    if isinstance(value, Mapping):
        return {name: _plain((*key, name), item) for name, item in value.items()}
    if not isinstance(value, tuple):
        return value
    if (key in PATH_FIELDS or key[:-1] in PATH_FIELDS) and len(value) == 1:
        return value[0]
    return [_plain(key, item) for item in value]


def build_job_schema() -> JsonSchemaValue:
    """Return the job file as JSON Schema (draft 2020-12), for editors to complete and check."""
    schema: JsonSchemaValue = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **job_model().model_json_schema(),
        "title": "cloudft job file",
        "description": "One fine-tuning job for the local, Bedrock or SageMaker backend.",
    }
    properties = schema["properties"]
    properties["hyperparameters"]["properties"] = _hyperparameters()
    properties["base_model"]["examples"] = [model.alias for model in load_models()]
    return schema


def _hyperparameters() -> JsonSchemaValue:
    """Return each name of the catalogue, with the range of every model; checks.py enforces them."""
    entries: JsonSchemaValue = {}
    for model in load_models():
        for row in model.hyperparameters.values():
            kind = "integer" if row.type == "int" else "number"
            entry = entries.setdefault(row.name, {"type": kind, "description": []})
            entry["minimum"] = min(row.min, entry.get("minimum", row.min))
            entry["maximum"] = max(row.max, entry.get("maximum", row.max))
            text = f"{model.alias}: {row.min:g} to {row.max:g}, default {row.default:g}"
            entry["description"].append(text)
    for entry in entries.values():
        entry["description"] = "; ".join(entry["description"])
    return entries
