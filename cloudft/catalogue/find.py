"""A name in, a `Model` out."""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from pathlib import Path

from cloudft.catalogue.load import load_local_hyperparameters, load_models
from cloudft.catalogue.model import Lifecycle, Model, Source, Weights
from cloudft.catalogue.stated_prices import with_stated_prices
from cloudft.errors import UnknownModel

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.gguf")
_ARN = re.compile(r"arn:aws[a-z-]*:bedrock:[a-z0-9-]*:[0-9]*:foundation-model/(?P<id>[^/\s]+)")
_CUSTOM_ARN = re.compile(
    r"arn:aws[a-z-]*:bedrock:[a-z0-9-]+:[0-9]{12}:custom-model/(?P<id>[^/\s]+)/[a-z0-9]{12}"
)
"""A custom model's ARN names the foundation model that it was made from."""
_HUB_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")


def find_model(name: str, *, base_dir: Path | None = None) -> Model:
    """The model that `name` means: an alias, a Bedrock id or ARN, a folder, or a hub id.

    A Bedrock id may lack its context suffix and its version (`amazon.nova-lite-v1`). A folder is
    taken relative to `base_dir` (the current one when None) and wins over a hub id. Raises
    UnknownModel, which names the nearest aliases. Prices that CLOUDFT_HOME states are the model's.
    """
    arn = _ARN.fullmatch(name) or _CUSTOM_ARN.fullmatch(name)
    model = _models_by_name().get(arn["id"] if arn else name)
    if model:
        return with_stated_prices(model, _models_by_name())
    folder = _as_path(name, base_dir)
    if not arn and (_is_folder(folder) or _looks_like_path(name)):
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


def find_catalogue_model(name: str) -> Model | None:
    """The catalogue's model of that alias, Bedrock id or ARN; None without. Touches no disk."""
    arn = _ARN.fullmatch(name) or _CUSTOM_ARN.fullmatch(name)
    return _models_by_name().get(arn["id"] if arn else name)


def is_hub_id(name: str) -> bool:
    """True of a word in the form of a hub id."""
    return _HUB_ID.fullmatch(name) is not None


@lru_cache(maxsize=1)
def _models_by_name() -> dict[str, Model]:
    """Every alias and id, the shorter forms of an id included."""
    names: dict[str, Model] = {}
    for model in load_models():
        names[model.alias] = model
        for known in (model.bedrock_id, *model.other_ids):
            while known:
                names.setdefault(known, model)
                known = known.rpartition(":")[0]
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
    """A model of the user's own: a Hugging Face folder with config.json and weights."""
    if not _is_folder(folder):
        raise UnknownModel(
            f"no folder {name[:200]!r} to take a model from",
            fix="give a folder with config.json and weights, or an alias of `cloudft models`",
        )
    config = folder / "config.json"
    if not config.is_file():
        raise UnknownModel(
            f"the folder {name!r} holds no model: it has no config.json" + _suggestion(name),
            fix="give a Hugging Face model folder, or an alias of `cloudft models`",
        )
    if not any(match for pattern in WEIGHT_FILES for match in folder.glob(pattern)):
        raise UnknownModel(
            f"the folder {name!r} has a config.json but no weights ({', '.join(WEIGHT_FILES)})",
            fix="put the model's weight files into the folder",
        )
    weights = Weights(kind="folder", path=str(folder))
    return _open_weight_model(name, weights, _read_context_length(config), "a folder of yours")


def _read_context_length(config: Path) -> int | None:
    """The longest context that config.json states; raises UnknownModel when it can't be read."""
    try:
        data = json.loads(config.read_bytes())
    except (OSError, ValueError, RecursionError) as exc:
        raise UnknownModel(f"{config} can't be read: {exc}", fix="repair the file") from exc
    value = data.get("max_position_embeddings") if isinstance(data, dict) else None
    return value if isinstance(value, int) else None


def _open_weight_model(name: str, weights: Weights, context: int | None, origin: str) -> Model:
    """An open-weight model that stands in no catalogue file."""
    source = Source("given", origin, "")
    return Model(
        alias=name,
        title=name,
        family="open-weight",
        lifecycle=Lifecycle(state="active", source=source, note="not in the catalogue"),
        customization_types=("FINE_TUNING", "CONTINUED_PRE_TRAINING"),
        formats={"FINE_TUNING": "converse", "CONTINUED_PRE_TRAINING": "input"},
        hyperparameters=load_local_hyperparameters(),
        early_stopping=True,
        weights=(weights,),
        context=context,
        sources=(source,),
    )


def _suggestion(name: str) -> str:
    near = _closest_aliases(name)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _closest_aliases(name: str) -> list[str]:
    """Up to three aliases that look like `name`, by alias first and by id then."""
    import difflib

    lower = name.lower()[:200]
    aliases = [model.alias for model in load_models()]
    by_id = difflib.get_close_matches(lower, list(_models_by_name()), n=3, cutoff=0.7)
    by_alias = difflib.get_close_matches(lower, aliases, n=3, cutoff=0.6)
    return list(dict.fromkeys([*by_alias, *(_models_by_name()[known].alias for known in by_id)]))[
        :3
    ]


def _unknown_model(name: str) -> UnknownModel:
    if ":custom-model/" in name:
        return UnknownModel(
            f"{name!r} is a custom model of a model that the catalogue lacks",
            fix="name one that was made from a model of `cloudft models`",
        )
    return UnknownModel(
        f"no model {name[:200]!r} in the catalogue" + _suggestion(name),
        fix="`cloudft models` lists the aliases; a folder or a hub id (org/name) will do too",
    )
