"""Flag, job file, environment: three layers of one tree, the higher one's values winning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudft.spec.document import flow, leaves
from cloudft.spec.scalars import Plain, word
from cloudft.spec.tree import Key, fields, leaf_names, nearest
from cloudft.types import Finding

OriginKind = Literal["flag", "file", "environment", "stack", "catalogue", "default"]
PREFIX = "CLOUDFT_"
NOT_OURS = frozenset(
    {
        "CLOUDFT_HOME",
        "CLOUDFT_MODEL_CACHE",
        "CLOUDFT_OUTPUT",
        "CLOUDFT_LOG",
        "CLOUDFT_ENDPOINT_TOKEN",
    }
)
SECTIONS: frozenset[Key] = frozenset(
    {
        ("hyperparameters",),
        ("tags",),
        ("bedrock",),
        ("bedrock", "request"),
        ("reinforcement", "hyperparameters"),
        ("local",),
        ("sagemaker",),
        ("data", "columns"),
        ("local", "lora"),
        ("local", "hyperparameters"),
    }
)
"""A section with nothing under it (`local:` alone) counts as not given."""


@dataclass(frozen=True)
class Origin:
    """Where a value came from: `cloudft.yaml:7`, `CLOUDFT_SEED`, `--set seed`, an alias."""

    kind: OriginKind
    where: str


@dataclass
class Merged:
    """The tree after merging, and where each of its leaves came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Key, Origin] = field(default_factory=dict)

    def put(self, key: Key, value: object, origin: Origin) -> None:
        """Set one leaf. It replaces what stood there, above it or below it."""
        self.forget(key)
        branch = self.tree
        for name in key[:-1]:
            inner = branch.get(name)
            branch = branch.setdefault(name, {}) if isinstance(inner, dict) else _new(branch, name)
        branch[key[-1]] = value
        self.origins[key] = origin

    def has(self, key: Key) -> bool:
        """True when a lower layer said something below `key`."""
        return any(old[: len(key)] == key for old in self.origins)

    def forget(self, key: Key) -> None:
        """Drop the origins of what a new leaf at `key` replaces."""
        for old in list(self.origins):
            if old[: len(key)] == key or key[: len(old)] == old:
                del self.origins[old]


def _new(branch: dict[str, Any], name: str) -> dict[str, Any]:
    branch[name] = {}
    inner: dict[str, Any] = branch[name]
    return inner


def overlay(merged: Merged, tree: Mapping[str, Any], origins: Mapping[Key, Origin]) -> None:
    """Lay a tree over what is there. `origins` has one for each of its leaves."""
    for key, value in leaves(tree):
        if (key in SECTIONS and value is None) or (value == {} and merged.has(key)):
            continue
        merged.put(key, value, origins[key])


def given(value: object) -> object:
    """A value of a flag or a variable. Text is read as YAML would; numbers stay `Plain`."""
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str):
        return value
    if value[:1] in {"[", "{", '"', "'"}:
        return flow(value)
    return None if word(value) is None else Plain(value)


def from_flags(flags: Mapping[str, object]) -> list[tuple[Key, object, Origin]]:
    """Flags by dotted names as leaves. Names are checked later, with everyone else's."""
    return [
        (key, value, Origin("flag", f"--set {name}"))
        for name, raw in flags.items()
        for key, value in _spread(tuple(name.split(".")), given(raw))
    ]


def _spread(key: Key, value: object) -> list[tuple[Key, object]]:
    if isinstance(value, Mapping) and value:
        return [((*key, *inner), leaf) for inner, leaf in leaves(value)]
    return [(key, value)]


def from_environment(
    environ: Mapping[str, str],
) -> tuple[list[tuple[Key, object, Origin]], list[Finding]]:
    """The variables that set fields, as leaves, and a warning for each CLOUDFT_ name unknown."""
    found: list[tuple[Key, object, Origin]] = []
    warnings: list[Finding] = []
    for variable in ("AWS_DEFAULT_REGION", "AWS_REGION"):  # the latter wins
        if environ.get(variable):
            found.append((("bedrock", "region"), environ[variable], _variable(variable)))
    if environ.get("AWS_ENDPOINT_URL"):
        url = environ["AWS_ENDPOINT_URL"]
        found.append((("bedrock", "endpoint_url"), url, _variable("AWS_ENDPOINT_URL")))
    for variable, text in sorted(environ.items()):
        if not variable.upper().startswith(PREFIX) or variable in NOT_OURS or not text:
            continue
        key = _field_of(variable[len(PREFIX) :])
        if key is None:
            warnings.append(_unknown_variable(variable))
        else:
            found += [(k, v, _variable(variable)) for k, v in _spread(key, given(text))]
    return found, warnings


def _variable(name: str) -> Origin:
    return Origin("environment", name)


def _field_of(name: str) -> Key | None:
    """`LOCAL__DEVICE` -> ("local", "device"). A tag keeps the case it is written in."""
    section, _, tag = name.partition("__")
    if section.lower() == "tags" and tag:
        return ("tags", tag)
    return leaf_names().get(name.lower())


def _unknown_variable(name: str) -> Finding:
    known = [PREFIX + k.upper() for k in leaf_names()] + sorted(NOT_OURS)
    near = nearest(name, known)
    fix = f"did you mean {near}?" if near else "remove it"
    return Finding("warning", "UnknownVariable", f"{name} sets no field of a job", fix)


def file_order(keys: Iterable[Key]) -> list[Key]:
    """Keys in the job file's order of fields; names of open mappings in alphabetical order."""
    return sorted(keys, key=_rank)


def _rank(key: Key) -> tuple[tuple[int, str], ...]:
    known = fields()
    ranks = []
    for depth, name in enumerate(key):
        names = list(known.get(key[:depth], ()))
        ranks.append((names.index(name) if name in names else len(names), name))
    return tuple(ranks)
