"""Find out what the base model of a job is called on the Hub, and under which license it is."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cloudft import catalogue
from cloudft.catalogue.find import is_hub_id
from cloudft.catalogue.model import Model, Weights
from cloudft.errors import UnknownModel
from cloudft.storage.store import JobRecord

CARD = "README.md"
MAX_CARD_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A---\r?\n(.*?)\r?\n---\s*$", re.DOTALL | re.MULTILINE)


@dataclass(frozen=True)
class License:
    """A license by its name as found, and where it was found."""

    name: str
    source: str
    link: str | None = None


@dataclass(frozen=True)
class BaseModel:
    """The model that was tuned. `hub_id` and `license` are None where they are not known.

    `title` is fit for others: never a path of this machine. `sha256` is that of its weights.
    `job` is the job that made it, where the base is itself a tuned model.
    """

    title: str
    hub_id: str | None = None
    license: License | None = None
    sha256: str | None = None
    context: int | None = None
    parameters: int | None = None
    architecture: str | None = None
    job: str | None = None


def find_base_model(
    record: JobRecord, trained: str | None = None, named: str | None = None
) -> BaseModel:
    """Return the base model of a job.

    `trained` are the weights that were trained on this machine, where the job file names a model
    of Bedrock: what others get comes from those. `named` is the base's hub id, where people name
    it.
    """
    name = trained or str(record.base_model)
    try:
        model = catalogue.find_model(name)
    except UnknownModel:  # its folder is gone, or it is of another version of the catalogue
        found = BaseModel(_title(name), name if is_hub_id(name) and not _is_path(name) else None)
    else:
        found = _from_catalogue(name, model)
    if named is None:
        return found
    license = found.license
    if license is None and (known := _catalogue_license(named)):
        license = License(known, "cloudft's catalogue")
    return replace(found, hub_id=named, title=named, license=license)


def _from_catalogue(name: str, model: Model) -> BaseModel:
    hub_id = _hub_id(model.weights)
    known = model.license or _catalogue_license(hub_id)
    license = License(known, "cloudft's catalogue") if known else None
    for folder in model.folders:
        license = license or _license_of_card(folder)
    return BaseModel(
        title=hub_id or _title(name),
        hub_id=hub_id,
        license=license,
        context=model.context,
        parameters=model.parameters,
        architecture=next(filter(None, map(_architecture, model.folders)), None),
        job=next((one.job for one in model.weights if one.kind == "job"), None),
    )


def _hub_id(weights: tuple[Weights, ...]) -> str | None:
    """Return the id of the first weights on the Hub; of a tuned model, that of its base."""
    for one in weights:
        found = one.hub_id or (_hub_id(one.base) if one.base else None)
        if found:
            return found
    return None


def _architecture(folder: Path) -> str | None:
    """Return the class of the model in a folder, by its configuration."""
    try:
        named = json.loads((folder / "config.json").read_bytes())["architectures"][0]
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return named if isinstance(named, str) else None


def _title(name: str) -> str:
    """Return a name without folders of this machine, and without account and Region of an ARN."""
    if name.startswith("arn:"):
        return name.partition("/")[2] or "a model of Amazon Bedrock"
    return Path(name).name if _is_path(name) else name


def _catalogue_license(hub_id: str | None) -> str | None:
    """Return the license of the catalogue's model that has this id on the Hub."""
    for model in catalogue.load_models() if hub_id else ():
        if any(one.hub_id == hub_id for one in model.weights):
            return model.license
    return None


def _is_path(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or Path(name).is_dir()


def _license_of_card(folder: Path) -> License | None:
    """Return the license in the metadata of a folder's model card, None without one."""
    metadata = read_card_metadata(folder / CARD)
    name = metadata.get("license_name") if metadata.get("license") == "other" else None
    name = name or metadata.get("license")
    if not isinstance(name, str) or not name.strip():
        return None
    link = metadata.get("license_link")
    is_link = isinstance(link, str) and link.startswith("https://")
    return License(name.strip()[:200], "the base's model card", str(link) if is_link else None)


def read_card_metadata(path: Path) -> Mapping[str, Any]:
    """Return the YAML at the beginning of a model card; nothing where it can't be read."""
    import yaml

    try:
        if path.stat().st_size > MAX_CARD_BYTES:
            return {}
        match = _FRONT_MATTER.match(path.read_text(encoding="utf-8"))
        metadata = yaml.safe_load(match[1]) if match else None
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        return {}
    return metadata if isinstance(metadata, dict) else {}
