"""Merge flags, job file and environment: three layers of one tree, the higher one's values win."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from cloudft.spec.field_index import (
    environment_names,
    find_nearest_name,
    known_fields,
    optional_mappings,
)
from cloudft.spec.sections import job_sections
from cloudft.spec.yaml_scalars import UntypedScalar, parse_scalar
from cloudft.spec.yaml_source import FieldPath, JobTree, TreeDict, flatten, parse_flow_value
from cloudft.types import Finding

OriginKind = Literal["flag", "file", "environment", "stack", "catalogue", "default"]
ENV_PREFIX = "CLOUDFT_"
NON_FIELD_VARIABLES = frozenset(
    {
        "CLOUDFT_HOME",
        "CLOUDFT_MODEL_CACHE",
        "CLOUDFT_TOKEN_CACHE",
        "CLOUDFT_OUTPUT",
        "CLOUDFT_LOG",
        "CLOUDFT_ENDPOINT_TOKEN",
    }
)
"""Variables of cloudft that set no field of a job."""


@dataclass(frozen=True)
class Origin:
    """Where a value came from: `cloudft.yaml:7`, `CLOUDFT_SEED`, `--set seed`, an alias."""

    kind: OriginKind
    where: str


@dataclass
class MergedTree:
    """The tree after merging, and where each of its leaves came from."""

    tree: TreeDict = field(default_factory=dict)
    origins: dict[FieldPath, Origin] = field(default_factory=dict)

    def set_leaf(self, path: FieldPath, value: object, origin: Origin) -> None:
        """Set one leaf. It replaces what was set before, above it or below it."""
        self.drop_origins(path)
        branch = self.tree
        for name in path[:-1]:
            inner = branch.get(name)
            if not isinstance(inner, dict):
                inner = branch[name] = {}
            branch = inner
        branch[path[-1]] = value
        self.origins[path] = origin

    def has_below(self, path: FieldPath) -> bool:
        """Return whether a lower layer has set something at or below `path`."""
        return any(old[: len(path)] == path for old in self.origins)

    def drop_origins(self, path: FieldPath) -> None:
        """Drop the origins of what a new leaf at `path` replaces."""
        for old in list(self.origins):
            if old[: len(path)] == path or path[: len(old)] == old:
                del self.origins[old]


def overlay(merged: MergedTree, tree: JobTree, origins: Mapping[FieldPath, Origin]) -> None:
    """Lay a tree over what is merged already. `origins` has one for each of its leaves."""
    optional = optional_mappings()
    for path, value in flatten(tree):
        # A section with nothing under it (`local:` alone) is not given: it must not erase what the
        # environment sets in it.
        if (value is None and path in optional) or (value == {} and merged.has_below(path)):
            continue
        merged.set_leaf(path, value, origins[path])


def parse_override(value: object) -> object:
    """Return the value of a flag or a variable.

    Text is parsed as YAML; a number stays an UntypedScalar, which its field decides about.
    """
    if isinstance(value, tuple):
        return list(value)
    if not isinstance(value, str):
        return value
    if value[:1] in {"[", "{", '"', "'"}:
        return parse_flow_value(value)
    return None if parse_scalar(value) is None else UntypedScalar(value)


def read_flags(flags: JobTree) -> list[tuple[FieldPath, object, Origin]]:
    """Return flags by dotted names as leaves. Names are checked later, with all others."""
    return [
        (path, value, Origin("flag", f"--set {name}"))
        for name, raw in flags.items()
        for path, value in _flatten_override(tuple(name.split(".")), parse_override(raw))
    ]


def _flatten_override(path: FieldPath, value: object) -> list[tuple[FieldPath, object]]:
    if isinstance(value, Mapping) and value:
        return [((*path, *inner), leaf) for inner, leaf in flatten(value)]
    return [(path, value)]


def read_environment(
    environ: Mapping[str, str],
) -> tuple[list[tuple[FieldPath, object, Origin]], list[Finding]]:
    """Return the variables that set fields as leaves, and a warning for each unknown CLOUDFT_*."""
    leaves: list[tuple[FieldPath, object, Origin]] = []
    warnings: list[Finding] = []
    for section in job_sections().values():
        for variable, name in section.environment.items():
            if environ.get(variable):
                leaves.append(((section.name, name), environ[variable], _variable(variable)))
    for variable, text in sorted(environ.items()):
        if not text or not _may_set_field(variable):
            continue
        path = _find_field(variable[len(ENV_PREFIX) :])
        if path is None:
            warnings.append(_unknown_variable(variable))
        else:
            values = _flatten_override(path, parse_override(text))
            leaves += [(p, value, _variable(variable)) for p, value in values]
    return leaves, warnings


def _may_set_field(variable: str) -> bool:
    return variable.upper().startswith(ENV_PREFIX) and variable not in NON_FIELD_VARIABLES


def _variable(name: str) -> Origin:
    return Origin("environment", name)


def _find_field(name: str) -> FieldPath | None:
    """Return ("local", "device") for `LOCAL__DEVICE`. A tag keeps its case."""
    section, _, tag = name.partition("__")
    if section.lower() == "tags" and tag:
        return ("tags", tag)
    return environment_names().get(name.lower())


def _unknown_variable(name: str) -> Finding:
    known = [ENV_PREFIX + k.upper() for k in environment_names()] + sorted(NON_FIELD_VARIABLES)
    near = find_nearest_name(name, known)
    fix = f"did you mean {near}?" if near else "remove it"
    return Finding("warning", "UnknownVariable", f"{name} sets no field of a job", fix)


def sort_in_file_order(paths: Iterable[FieldPath]) -> list[FieldPath]:
    """Return paths in the job file's order of fields; the user's own names alphabetically."""
    return sorted(paths, key=_rank)


def _rank(path: FieldPath) -> tuple[tuple[int, str], ...]:
    fields = known_fields()
    ranks = []
    for depth, name in enumerate(path):
        names = list(fields.get(path[:depth], ()))
        ranks.append((names.index(name) if name in names else len(names), name))
    return tuple(ranks)
