"""Find a base model by alias, Bedrock id, ARN, folder or hub id."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from cloudft.catalogue.customization_types import CUSTOMIZATION_TYPES
from cloudft.catalogue.load import load_local_hyperparameters, load_models
from cloudft.catalogue.model import Lifecycle, Model, Weights
from cloudft.catalogue.profile_ids import on_demand_id, parse_profile, profile_id
from cloudft.catalogue.source import Source
from cloudft.catalogue.stated_prices import with_stated_prices
from cloudft.catalogue.trained_jobs import (
    PREFIX,
    custom_model_arn,
    find_kept_model,
    find_trained_job,
    trained_model_of,
)
from cloudft.errors import UnknownModel

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:foundation-model/(?P<id>[^/\s]+)")
_CUSTOM_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:custom-model/(?P<id>[^/\s]+)/[a-z0-9]{12}"
)
"""ARN of a custom model, which contains the id of the foundation model that it was made from."""
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def find_model(name: str, *, base_dir: Path | None = None) -> Model:
    """Return the model of an alias, a Bedrock id or ARN, a folder, or a hub id.

    A Bedrock id may lack its context suffix and its version (`amazon.nova-lite-v1`). That of an
    inference profile (`us.amazon.nova-lite-v1:0`), or its ARN, names the profile's model. A folder
    is relative to `base_dir` (the current one if None) and wins over a hub id. The model has the
    prices that CLOUDFT_HOME states. `job:` and a job is the model that the job left. Raise
    UnknownModel, which names the closest aliases.
    """
    if name.startswith(PREFIX):
        return _find_trained(name, base_dir)
    model = find_catalogue_model(name)
    if model:
        return with_stated_prices(model, _models_by_name())
    is_arn = name.startswith("arn:")
    folder = _as_path(name, base_dir)
    if not is_arn and (_is_folder(folder) or _looks_like_path(name)):
        try:
            return _model_from_folder(name, folder)
        except OSError as exc:
            message = f"the folder {name[:200]!r} can't be read: {exc.strerror}"
            raise UnknownModel(message, fix="make it readable") from exc
    if _HUB_ID.fullmatch(name) and not name.startswith("s3:"):
        return _open_weight_model(
            name, Weights(kind="hub", hub_id=name), None, "the Hugging Face hub"
        )
    raise _unknown_model(name)


def resolve_job(name: str) -> str:
    """Return the one name of the model that `job:` and a job names; other names as they are.

    It is `job:` and the whole id, or the ARN of a custom model. Raise UnknownModel.
    """
    if not name.startswith(PREFIX):
        return name
    model = _find_trained(name, None)
    if model.is_open_weight:
        return model.alias
    return custom_model_arn(find_trained_job(name.removeprefix(PREFIX)))


def _find_trained(name: str, base_dir: Path | None) -> Model:
    def find(other: str) -> Model:
        return find_model(other, base_dir=base_dir)

    reference = name.removeprefix(PREFIX)
    try:
        record = find_trained_job(reference)
    except UnknownModel:
        kept = find_kept_model(reference, find)
        if kept is None:
            raise
        return kept
    if record.backend == "bedrock":
        return find_model(custom_model_arn(record))
    return trained_model_of(record, find)


def find_catalogue_model(name: str) -> Model | None:
    """Return the catalogue's model of an alias, Bedrock id or ARN, else None; look in no folder.

    The id or ARN of an inference profile names the profile's model.
    """
    profile = parse_profile(name)
    if profile is not None:
        model = _models_by_name().get(profile.model)
        # A profile is named after an id, never after an alias or a part of an id.
        return model if model is not None and _has_on_demand_id(model, profile.model) else None
    arn = _ARN.fullmatch(name) or _CUSTOM_ARN.fullmatch(name)
    return _models_by_name().get(arn["id"] if arn else name)


def living_teachers(student: Model) -> tuple[Model, ...]:
    """Return the models that a student can be distilled from and that still answer."""
    models = map(find_catalogue_model, student.teachers)
    return tuple(one for one in models if one and one.lifecycle.state != "end-of-life")


def _has_on_demand_id(model: Model, identifier: str) -> bool:
    return identifier in {on_demand_id(one) for one in (model.bedrock_id or "", *model.other_ids)}


def is_hub_id(name: str) -> bool:
    """Return whether a name has the form of a hub id, ORG/NAME."""
    return _HUB_ID.fullmatch(name) is not None


@lru_cache(maxsize=1)
def _models_by_name() -> dict[str, Model]:
    """Return the models by every alias and id, and by the shorter forms of each id."""
    names: dict[str, Model] = {}
    for model in load_models():
        names[model.alias] = model
        for identifier in (model.bedrock_id, *model.other_ids):
            while identifier:
                names.setdefault(identifier, model)
                identifier = identifier.rpartition(":")[0]
    return names


def _as_path(name: str, base_dir: Path | None) -> Path:
    try:
        path = Path(name).expanduser()
        return ((base_dir or Path.cwd()) / path).absolute()
    except (RuntimeError, ValueError):  # no home for ~user
        return Path(name)


def _is_folder(path: Path) -> bool:
    return os.path.isdir(path)  # noqa: PTH112  (Path.is_dir raises when the name is too long)


def _looks_like_path(name: str) -> bool:
    return name.startswith(("/", "./", "../", "~")) or name in {".", ".."}


def _model_from_folder(name: str, folder: Path) -> Model:
    """Return the model in a Hugging Face folder, which has config.json and weights."""
    if not _is_folder(folder):
        raise UnknownModel(
            f"no folder {name[:200]!r} with a model",
            fix="name a folder with config.json and weights, or an alias of `cloudft models`",
        )
    config = folder / "config.json"
    if not config.is_file():
        raise UnknownModel(
            f"the folder {name!r} is no model folder: it has no config.json" + _suggestion(name),
            fix="name a Hugging Face model folder, or an alias of `cloudft models`",
        )
    if not any(match for pattern in WEIGHT_FILES for match in folder.glob(pattern)):
        raise UnknownModel(
            f"the folder {name!r} has a config.json but no weights ({', '.join(WEIGHT_FILES)})",
            fix="put the model's weight files into the folder",
        )
    weights = Weights(kind="folder", path=str(folder))
    return _open_weight_model(name, weights, _read_context_length(config), "a folder of yours")


def _read_context_length(config: Path) -> int | None:
    """Return the context length in config.json. Raise UnknownModel when it can't be read."""
    try:
        data = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise UnknownModel(f"{config} can't be read: {exc}", fix="repair the file") from exc
    value = data.get("max_position_embeddings") if isinstance(data, dict) else None
    return value if isinstance(value, int) else None


def _open_weight_model(name: str, weights: Weights, context: int | None, origin: str) -> Model:
    """Return an open-weight model that is not in the catalogue."""
    source = Source("given", origin, "")
    formats = {
        row.name: row.open_weight_format
        for row in CUSTOMIZATION_TYPES.values()
        if row.open_weight_format is not None
    }
    return Model(
        alias=name,
        title=name,
        family="open-weight",
        lifecycle=Lifecycle(recorded="active", source=source, note="not in the catalogue"),
        customization_types=tuple(formats),
        formats=formats,
        content={name: CUSTOMIZATION_TYPES[name].open_weight_content for name in formats},
        hyperparameters=load_local_hyperparameters(),
        early_stopping=True,
        weights=(weights,),
        context=context,
        sources=(source,),
    )


def _suggestion(name: str) -> str:
    aliases = _closest_aliases(name)
    return f"; did you mean {' or '.join(aliases)}?" if aliases else ""


def _closest_aliases(name: str) -> list[str]:
    """Return up to three aliases similar to `name`: by their own spelling, then by their ids'."""
    import difflib

    lower = name.lower()[:200]
    aliases = [model.alias for model in load_models()]
    models = _models_by_name()
    by_alias = difflib.get_close_matches(lower, aliases, n=3, cutoff=0.6)
    by_id = difflib.get_close_matches(lower, list(models), n=3, cutoff=0.7)
    return list(dict.fromkeys([*by_alias, *(models[name].alias for name in by_id)]))[:3]


def _unknown_model(name: str) -> UnknownModel:
    profile = parse_profile(name)
    if profile is not None and profile.is_application:
        return UnknownModel(
            f"{name!r} is an application inference profile: its name does not say its model",
            fix="name the model here, and the profile in bedrock.inference_profile",
        )
    near = _models_by_name().get(profile.model) if profile is not None else None
    if profile is not None and near is not None and near.bedrock_id:
        return UnknownModel(
            f"there is no inference profile {name[:200]!r}",
            fix=f"write {profile_id(profile.area, near.bedrock_id)}",
        )
    if profile is not None:
        return UnknownModel(
            f"the inference profile {name[:200]!r} is of a model that the catalogue lacks"
            + _suggestion(profile.model),
            fix="`cloudft models` lists the models",
        )
    if ":custom-model/" in name:
        return UnknownModel(
            f"{name!r} is a custom model of a base model that the catalogue lacks",
            fix="name a custom model of a base model that `cloudft models` lists",
        )
    return UnknownModel(
        f"no model {name[:200]!r} in the catalogue" + _suggestion(name),
        fix="`cloudft models` lists the aliases; a folder or a hub id (org/name) works too",
    )
