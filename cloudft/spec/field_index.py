"""The names a job file may use, read off the models, and the nearest one to a wrong one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, get_args

from pydantic import BaseModel

from cloudft.catalogue import load_models
from cloudft.spec.model import Column, JobSpec

FieldPath = tuple[str, ...]
MIX_PATH = ("data", "mix")
OPEN_MAPPINGS = frozenset({("hyperparameters",), ("local", "hyperparameters"), ("tags",)})
"""Mappings whose keys are the user's (or the base model's), not the models'."""


@lru_cache(maxsize=1)
def known_fields() -> dict[FieldPath, dict[str, str]]:
    """Each section's key; its names in the job file's order, with their descriptions.

    () is the top; ("data", "mix") stands for each item of that list.
    """
    found: dict[FieldPath, dict[str, str]] = {}
    _collect(JobSpec, (), found)
    found["data", "columns"] = dict.fromkeys(get_args(Column), "a column of yours")
    return found


def _collect(
    model: type[BaseModel], key: FieldPath, found: dict[FieldPath, dict[str, str]]
) -> None:
    found[key] = {name: info.description or "" for name, info in model.model_fields.items()}
    for name, info in model.model_fields.items():
        for part in _models_in(info.annotation):
            _collect(part, (*key, name), found)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation names: `X`, `X | None` or `tuple[X, ...]`."""
    choices = [annotation, *(a for a in get_args(annotation) if isinstance(a, type))]
    return [c for c in choices if isinstance(c, type) and issubclass(c, BaseModel)]


@lru_cache(maxsize=1)
def environment_names() -> dict[str, FieldPath]:
    """Every settable name in lower case, levels joined by `__`: how the environment says it.

    Hyperparameters are those of the whole catalogue. Tags are not among them: their names are
    the user's.
    """
    sections = known_fields()
    keys = [(*key, name) for key in sections if key != MIX_PATH for name in sections[key]]
    names = sorted({name for model in load_models() for name in model.hyperparameters})
    keys += [(*key, name) for key in OPEN_MAPPINGS if key != ("tags",) for name in names]
    return {"__".join(key).lower(): key for key in keys if key != ("tags",)}


def find_nearest_name(name: str, known: Iterable[str]) -> str | None:
    """The known name most like `name`, however it is cased or joined; None if none is like it."""
    by_letters = {_letters(k): k for k in known}
    close = difflib.get_close_matches(_letters(name[:100]), list(by_letters), n=1, cutoff=0.6)
    return by_letters[close[0]] if close else None


def find_elsewhere(name: str) -> str | None:
    """The dotted field that has this very name at another level: `train` is `data.train`."""
    for key, names in known_fields().items():
        for known in names:
            if key != MIX_PATH and _letters(known) == _letters(name):
                return ".".join((*key, known))
    return None


def _letters(name: str) -> str:
    return name.lower().replace("_", "").replace("-", "")
