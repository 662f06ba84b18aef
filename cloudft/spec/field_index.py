"""The names that a job file may use, read off its models, and the nearest one to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Annotated, get_args, get_origin

from pydantic import BaseModel

from cloudft.catalogue import load_models
from cloudft.spec.model import Column, JobSpec
from cloudft.spec.sections import job_model, job_sections
from cloudft.spec.yaml_source import FieldPath

MIX_PATH = ("data", "mix")
ANY_NAME = "*"
"""Stands in a path for each key of a mapping whose keys are the user's: `sweep.space.*.low`."""


@dataclass
class _FieldIndex:
    """What one job model knows. `names` has each section's fields with their descriptions."""

    names: dict[FieldPath, dict[str, str]] = field(default_factory=dict)
    optional: set[FieldPath] = field(default_factory=set)

    def collect(self, model: type[BaseModel], path: FieldPath = ()) -> None:
        """Add the fields of a model at `path`, and those of the models within it."""
        infos = model.model_fields
        self.names[path] = {name: info.description or "" for name, info in infos.items()}
        for name, info in infos.items():
            if info.default_factory is not None:
                self.optional.add((*path, name))
            is_mapping = get_origin(info.annotation) is dict
            for inner in _models_in(info.annotation):
                self.collect(inner, (*path, name, ANY_NAME) if is_mapping else (*path, name))


@lru_cache(maxsize=1)
def _index_of(model: type[JobSpec]) -> _FieldIndex:
    index = _FieldIndex()
    index.collect(model)
    index.names["data", "columns"] = dict.fromkeys(get_args(Column), "a column of yours")
    return index


def _models_in(annotation: object) -> list[type[BaseModel]]:
    """Return the models that an annotation names: `X`, `X | None`, `tuple[X, ...]`.

    Each part may be annotated with a validator.
    """
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    args = get_args(annotation)
    parts = args[:1] if get_origin(annotation) is Annotated else args
    return [model for part in parts for model in _models_in(part)]


def known_fields() -> dict[FieldPath, dict[str, str]]:
    """Return each section's path with its field names in order, and their descriptions.

    () is the top level; ("data", "mix") stands for each item of that list.
    """
    return _index_of(job_model()).names


def optional_mappings() -> set[FieldPath]:
    """Return the paths of mappings that are empty unless given: `local:` alone means just that."""
    return _index_of(job_model()).optional


def environment_names() -> dict[str, FieldPath]:
    """Return every field that an environment variable can set, by its name in lower case.

    Levels are joined by `__`. Hyperparameters are those of the whole catalogue. Tags are left out:
    their names are the user's.
    """
    return _environment_names(job_model())


@lru_cache(maxsize=1)
def _environment_names(model: type[JobSpec]) -> dict[str, FieldPath]:
    sections = _index_of(model).names
    single = [path for path in sections if path != MIX_PATH and ANY_NAME not in path]
    paths = [(*path, name) for path in single for name in sections[path]]
    names = sorted({name for model in load_models() for name in model.hyperparameters})
    tables = [()] + [(key,) for key, s in job_sections().items() if s.has_hyperparameters]
    paths += [(*table, "hyperparameters", name) for table in tables for name in names]
    return {"__".join(path).lower(): path for path in paths if path != ("tags",)}


def find_nearest_name(name: str, known: Iterable[str]) -> str | None:
    """Return the known name most similar to `name`, or None. Case, `_` and `-` do not count."""
    by_letters = {_letters(k): k for k in known}
    close = difflib.get_close_matches(_letters(name[:100]), list(by_letters), n=1, cutoff=0.6)
    return by_letters[close[0]] if close else None


def is_misspelling(name: str, known: str) -> bool:
    """Return whether two names differ by a slip: `train` is none of `tracking`."""
    return difflib.SequenceMatcher(None, _letters(name[:100]), _letters(known)).ratio() >= 0.8


def find_elsewhere(name: str) -> str | None:
    """Return the dotted field that has this very name at another level: `train` is `data.train`."""
    for path, names in known_fields().items():
        for known in names:
            if path != MIX_PATH and _letters(known) == _letters(name):
                return ".".join((*path, known))
    return None


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
