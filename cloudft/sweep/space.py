"""The space of a sweep: which fields of the job file are searched, and which values they may take.

A name is a hyperparameter by Bedrock's name, or the dotted path of another field that changes the
training. `find_field` says which field of the job file is meant.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeGuard, get_args

from cloudft.catalogue import CUSTOMIZATION_TYPES, Hyperparameter, load_local_hyperparameters
from cloudft.spec.checks import CheckContext, check_value
from cloudft.spec.field_index import find_nearest_name, known_fields
from cloudft.spec.sections import job_model
from cloudft.spec.validation_errors import find_faults
from cloudft.spec.yaml_scalars import as_number
from cloudft.spec.yaml_source import FieldPath, JobTree, TreeDict
from cloudft.types import Finding

Kind = Literal["int", "float", "other"]
Value = int | float | str | bool
Values = Mapping[str, Value]
"""A point of the space: the value of each parameter by its name."""
EDGE_SHARE = 0.05
"""Share of a range, on its scale, that counts as its edge."""
SPACE = ("sweep", "space")
TRAINING_SECTIONS = {
    (): ("early_stopping",),
    ("early_stopping",): None,
    ("local",): ("method", "max_length"),
    ("local", "lora"): ("r", "alpha", "dropout", "target_modules"),
    ("local", "early_stopping"): None,
    ("local", "reinforcement"): None,
    ("preference",): None,
}
"""Sections whose fields change what is learned, with their names; None for all of them."""
LAST_NAMES = {"rank": "local.lora.r", "lora_alpha": "local.lora.alpha", "lr": "learningRate"}
"""What other tools call a parameter -> its name here."""


@dataclass(frozen=True)
class SpaceParameter:
    """One parameter: its name, the field of the job file, and its range or its values."""

    name: str
    field: FieldPath
    kind: Kind
    low: float | None = None
    high: float | None = None
    log: bool = False
    values: tuple[Value, ...] = ()

    @property
    def dotted(self) -> str:
        """Return the field of the job file by its dotted name."""
        return ".".join(self.field)

    @property
    def is_ordered(self) -> bool:
        """Return whether its values have an order: a range, or a list of numbers."""
        return not self.values or all(_is_number(value) for value in self.values)

    def contains(self, value: object) -> bool:
        """Return whether a value is one that the sweep may try."""
        if self.values:
            return any(value == one and type(value) is type(one) for one in self.values)
        if not _is_number(value) or self.low is None or self.high is None:
            return False
        return self.low <= value <= self.high and (self.kind == "float" or value == int(value))

    def position(self, value: Value) -> float | None:
        """Return where a value lies, from 0 (lowest) to 1, on the parameter's scale.

        None for a value outside, or without an order.
        """
        if self.values:
            ordered = sorted(self.values) if self.is_ordered else list(self.values)
            return ordered.index(value) / (len(ordered) - 1) if value in ordered else None
        if not self.contains(value):
            return None
        assert self.low is not None and self.high is not None
        scale = math.log if self.log else float
        low, high = scale(self.low), scale(self.high)
        return (scale(value) - low) / (high - low)  # type: ignore[arg-type]

    def edge(self, value: Value) -> Literal["low", "high"] | None:
        """Return on which edge of the parameter's range a value lies; None for one inside."""
        at = self.position(value) if self.is_ordered else None
        if at is None:
            return None
        margin = 0.0 if self.values else EDGE_SHARE
        return "low" if at <= margin else "high" if at >= 1 - margin else None

    @property
    def size(self) -> float:
        """Return how many values there are; infinity for a range of fractions."""
        if self.values:
            return len(self.values)
        if self.kind == "float" or self.low is None or self.high is None:
            return math.inf
        return int(self.high) - int(self.low) + 1


def space_size(space: Sequence[SpaceParameter]) -> float:
    """Return how many points a space has."""
    return math.prod(parameter.size for parameter in space)


def point_key(values: Values) -> str:
    """Return the text that two equal points share."""
    return json.dumps(values, sort_keys=True)


def read_space(job_tree: JobTree, context: CheckContext) -> tuple[SpaceParameter, ...]:
    """Return the parameters of a job without errors, by the values of its section `sweep.space`.

    Each value of it is a list, or a mapping with low and high.
    """
    parameters = []
    for name, raw in job_tree.items():
        field = find_field(name, context)
        assert field is not None, "the job file was checked"
        kind = _kind_of(field, context)
        if isinstance(raw, Mapping):
            low, high = float(raw["low"]), float(raw["high"])
            parameters.append(
                SpaceParameter(name, field, kind, low, high, log=bool(raw.get("log", False)))
            )
        elif isinstance(raw, (list, tuple)):
            values = tuple(_as_kind(value, kind) for value in raw)
            parameters.append(SpaceParameter(name, field, kind, values=values))
    return tuple(parameters)


def _as_kind(value: Value, kind: Kind) -> Value:
    """Return 8 as 8.0 for a field of fractions: to Optuna they are two values, not to the job."""
    return float(value) if kind == "float" and _is_number(value) else value


def check_space(space: Mapping[str, object], context: CheckContext) -> list[Finding]:
    """Return what is wrong with a space, as it was given: names, and values out of their range."""
    findings: list[Finding] = []
    fields: dict[FieldPath, str] = {}
    for name, raw in space.items():
        field = find_field(str(name), context)
        if field is None:
            findings.append(_unknown_parameter(str(name), context))
        elif field in fields:
            message = f"sweep.space has {name} and {fields[field]}, which are the same field"
            path = (*SPACE, str(name))
            finding = context.source_map.make_finding("BadValue", path, message, "keep one of them")
            findings.append(finding)
        else:
            fields[field] = str(name)
            findings += _check_parameter(str(name), field, raw, context)
    return findings


def find_field(name: str, context: CheckContext) -> FieldPath | None:
    """Return the field of the job file that a name means; None where there is none to search."""
    path = tuple(name.split("."))
    tables = _tables(context)
    if len(path) == 1:
        for table, rows in tables.items():
            if path[0] in rows and (table[0] != "local" or _is_local(path[0], context)):
                return (*table, path[0])
    if path[:-1] in tables and path[-1] in tables[path[:-1]]:
        return path
    return path if path in _training_fields(context) else None


def _is_local(name: str, context: CheckContext) -> bool:
    """Return whether a hyperparameter is set under `local`, or is one of the trainer's alone."""
    set_here = _value_at(context.tree, ("local", "hyperparameters", name))
    own = context.model.hyperparameters if context.model else {}
    return set_here is not None or name not in own


def _tables(context: CheckContext) -> dict[FieldPath, Mapping[str, Hyperparameter]]:
    """Return the hyperparameters that the trainer takes, by the mapping that they are written in.

    One that is set under `local` wins, so that comes first.
    """
    kind = context.customization_type
    trained = load_local_hyperparameters(kind)
    own = context.model.hyperparameters if context.model else {}
    row = CUSTOMIZATION_TYPES.get(kind)
    if row is not None and row.has_own_hyperparameters and row.section:
        place: FieldPath = (row.section, "hyperparameters")
        return {("local", "hyperparameters"): trained, place: trained}
    plain = {name: own[name] for name in own if name in trained}
    return {("local", "hyperparameters"): trained, ("hyperparameters",): plain}


def _training_fields(context: CheckContext) -> set[FieldPath]:
    """Return the fields that change what a job of this type learns."""
    known, without = known_fields(), set[FieldPath]()
    if context.customization_type != "PREFERENCE_OPTIMIZATION":
        without.add(("preference",))
    if context.customization_type != "REINFORCEMENT_FINE_TUNING":
        without.add(("local", "reinforcement"))
    if _value_at(context.tree, ("local", "method")) == "full":
        without.add(("local", "lora"))
    named = {
        (*section, name)
        for section, names in TRAINING_SECTIONS.items()
        if section not in without
        for name in (known.get(section, {}) if names is None else names)
    }
    return {path for path in named if path[:-1] in known and path not in known}


def _known_names(context: CheckContext) -> Iterator[str]:
    for rows in _tables(context).values():
        yield from rows
    yield from sorted(map(".".join, _training_fields(context)))


def _unknown_parameter(name: str, context: CheckContext) -> Finding:
    path = (*SPACE, name)
    make = context.source_map.make_finding
    if name == "seed":
        message = "sweep.space.seed: the seed is not searched, it would choose the luckiest run"
        return make("UnknownParameter", path, message, "remove it; sweep.seeds repeats the best")
    names = list(dict.fromkeys(_known_names(context)))
    short = {one.rpartition(".")[2]: one for one in names} | LAST_NAMES
    near = short.get(name) or find_nearest_name(name, names)
    if near is None and (part := find_nearest_name(name.rpartition(".")[2], short)):
        near = short[part]
    known = ", ".join(names)
    message = f"sweep.space has no parameter {name[:100]!r} that changes the training"
    fix = f"did you mean {near}?" if near else f"name one of: {known}"
    return make("UnknownParameter", path, message, fix)


def _check_parameter(
    name: str, field: FieldPath, raw: object, context: CheckContext
) -> list[Finding]:
    """Return what is wrong with the bounds or the values of a parameter."""
    path = (*SPACE, name)
    kind = _kind_of(field, context)
    if isinstance(raw, Mapping) and raw.get("values") is None:
        bounds = {key: raw[key] for key in ("low", "high") if raw.get(key) is not None}
        if bounds and kind == "other":
            message = f"sweep.space.{name} is no number: it has no range"
            fix = "list its values: [lora, full]"
            return [context.source_map.make_finding("WrongType", path, message, fix)]
        entries = {(*path, key): value for key, value in bounds.items()}
    else:
        values = raw.get("values") if isinstance(raw, Mapping) else raw
        listed = values if isinstance(values, (list, tuple)) else ()
        entries = {(*path, str(number)): value for number, value in enumerate(listed)}
    return [f for at, value in entries.items() for f in _check_one(field, at, value, context)]


def _check_one(
    field: FieldPath, at: FieldPath, raw: object, context: CheckContext
) -> list[Finding]:
    """Return what would be wrong with a job that has the value `raw` in that field."""
    value = as_number(raw)
    table = _tables(context).get(field[:-1])
    if table is not None:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            message = f"{'.'.join(at)} is {str(value)[:100]!r}; it must be a number"
            return [context.source_map.make_finding("WrongType", at, message, "write a number")]
        owner = "the local trainer"
        if field[0] == "hyperparameters" and context.model is not None:
            owner = context.model.alias
        return check_value(at, value, table[field[-1]], owner, context.source_map)
    dotted = ".".join(field)
    return [
        context.source_map.make_finding(f.code, at, f"{'.'.join(at)}: {f.message}", f.fix or "")
        for f in find_faults(_with_value(context.tree, field, value), context.source_map)
        if f.field == dotted or (f.field or "").startswith(f"{dotted}.")
    ]


def _with_value(tree: JobTree, path: FieldPath, value: object) -> TreeDict:
    """Return the tree with another value at a path, without the sweep itself."""
    changed: TreeDict = {name: part for name, part in tree.items() if name != SPACE[0]}
    inner = changed
    for name in path[:-1]:
        part = inner.get(name)
        inner[name] = dict(part) if isinstance(part, Mapping) else {}
        inner = inner[name]  # type: ignore[assignment]
    inner[path[-1]] = value
    return changed


def _value_at(tree: JobTree, path: FieldPath) -> object:
    value: object = tree
    for name in path:
        value = value.get(name) if isinstance(value, Mapping) else None
    return value


def _kind_of(field: FieldPath, context: CheckContext) -> Kind:
    """Return the type of a field's values."""
    table = _tables(context).get(field[:-1])
    if table is not None:
        return table[field[-1]].type
    model: object = job_model()
    for name in field[:-1]:
        annotation = model.model_fields[name].annotation  # type: ignore[attr-defined]
        model = next(one for one in _types_in(annotation) if hasattr(one, "model_fields"))
    found = set(_types_in(model.model_fields[field[-1]].annotation))  # type: ignore[attr-defined]
    return "float" if float in found else "int" if int in found else "other"


def _types_in(annotation: object) -> Iterator[object]:
    yield annotation
    for part in get_args(annotation):
        yield from _types_in(part)


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
