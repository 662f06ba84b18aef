"""Flag, job file, environment: three layers of one tree, the higher one's values winning."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from cloudft.spec.field_index import (
    FieldPath,
    environment_names,
    find_nearest_name,
    known_fields,
    optional_mappings,
)
from cloudft.spec.sections import job_sections
from cloudft.spec.yaml_scalars import UntypedScalar, parse_scalar
from cloudft.spec.yaml_source import flatten, parse_flow_value
from cloudft.types import Finding

OriginKind = Literal["flag", "file", "environment", "stack", "catalogue", "default"]
ENV_PREFIX = "CLOUDFT_"
NON_FIELD_VARIABLES = frozenset(
    {
        "CLOUDFT_HOME",
        "CLOUDFT_MODEL_CACHE",
        "CLOUDFT_OUTPUT",
        "CLOUDFT_LOG",
        "CLOUDFT_ENDPOINT_TOKEN",
    }
)


@dataclass(frozen=True)
class Origin:
    """Where a value came from: `cloudft.yaml:7`, `CLOUDFT_SEED`, `--set seed`, an alias."""

    kind: OriginKind
    where: str


@dataclass
class MergedTree:
    """The tree after merging, and where each of its leaves came from."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[FieldPath, Origin] = field(default_factory=dict)

    def set_leaf(self, key: FieldPath, value: object, origin: Origin) -> None:
        """Set one leaf. It replaces what stood there, above it or below it."""
        self.drop_origins(key)
        branch = self.tree
        for name in key[:-1]:
            inner = branch.get(name)
            branch = branch.setdefault(name, {}) if isinstance(inner, dict) else _new(branch, name)
        branch[key[-1]] = value
        self.origins[key] = origin

    def has_below(self, key: FieldPath) -> bool:
        """True when a lower layer said something below `key`."""
        return any(old[: len(key)] == key for old in self.origins)

    def drop_origins(self, key: FieldPath) -> None:
        """Drop the origins of what a new leaf at `key` replaces."""
        for old in list(self.origins):
            if old[: len(key)] == key or key[: len(old)] == old:
                del self.origins[old]


def _new(branch: dict[str, Any], name: str) -> dict[str, Any]:
    branch[name] = {}
    inner: dict[str, Any] = branch[name]
    return inner


def overlay(
    merged: MergedTree, tree: Mapping[str, Any], origins: Mapping[FieldPath, Origin]
) -> None:
    """Lay a tree over what is there. `origins` has one for each of its leaves."""
    optional = optional_mappings()
    for key, value in flatten(tree):
        if (value is None and key in optional) or (value == {} and merged.has_below(key)):
            continue
        merged.set_leaf(key, value, origins[key])


def parse_override(value: object) -> object:
    """A value of a flag or a variable. Text is read as YAML would; numbers stay `Plain`."""
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str):
        return value
    if value[:1] in {"[", "{", '"', "'"}:
        return parse_flow_value(value)
    return None if parse_scalar(value) is None else UntypedScalar(value)


def read_flags(flags: Mapping[str, object]) -> list[tuple[FieldPath, object, Origin]]:
    """Flags by dotted names as leaves. Names are checked later, with everyone else's."""
    return [
        (key, value, Origin("flag", f"--set {name}"))
        for name, raw in flags.items()
        for key, value in _spread(tuple(name.split(".")), parse_override(raw))
    ]


def _spread(key: FieldPath, value: object) -> list[tuple[FieldPath, object]]:
    if isinstance(value, Mapping) and value:
        return [((*key, *inner), leaf) for inner, leaf in flatten(value)]
    return [(key, value)]


def read_environment(
    environ: Mapping[str, str],
) -> tuple[list[tuple[FieldPath, object, Origin]], list[Finding]]:
    """The variables that set fields, as leaves, and a warning for each CLOUDFT_ name unknown."""
    found: list[tuple[FieldPath, object, Origin]] = []
    warnings: list[Finding] = []
    for section in job_sections().values():
        for variable, field_name in section.environment.items():
            if environ.get(variable):
                key = (section.name, field_name)
                found.append((key, environ[variable], _variable(variable)))
    for variable, text in sorted(environ.items()):
        if (
            not variable.upper().startswith(ENV_PREFIX)
            or variable in NON_FIELD_VARIABLES
            or not text
        ):
            continue
        path = _field_of(variable[len(ENV_PREFIX) :])
        if path is None:
            warnings.append(_unknown_variable(variable))
        else:
            found += [(k, v, _variable(variable)) for k, v in _spread(path, parse_override(text))]
    return found, warnings


def _variable(name: str) -> Origin:
    return Origin("environment", name)


def _field_of(name: str) -> FieldPath | None:
    """`LOCAL__DEVICE` -> ("local", "device"). A tag keeps the case it is written in."""
    section, _, tag = name.partition("__")
    if section.lower() == "tags" and tag:
        return ("tags", tag)
    return environment_names().get(name.lower())


def _unknown_variable(name: str) -> Finding:
    known = [ENV_PREFIX + k.upper() for k in environment_names()] + sorted(NON_FIELD_VARIABLES)
    near = find_nearest_name(name, known)
    fix = f"did you mean {near}?" if near else "remove it"
    return Finding("warning", "UnknownVariable", f"{name} sets no field of a job", fix)


def sort_in_file_order(keys: Iterable[FieldPath]) -> list[FieldPath]:
    """Keys in the job file's order of fields; names of open mappings in alphabetical order."""
    return sorted(keys, key=_rank)


def _rank(key: FieldPath) -> tuple[tuple[int, str], ...]:
    known = known_fields()
    ranks = []
    for depth, name in enumerate(key):
        names = list(known.get(key[:depth], ()))
        ranks.append((names.index(name) if name in names else len(names), name))
    return tuple(ranks)
