"""Turn pydantic's errors into findings: file, line, field, what is wrong, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypedDict, cast

from pydantic import ValidationError

from cloudft.spec.field_index import (
    ANY_NAME,
    MIX_PATH,
    find_elsewhere,
    find_nearest_name,
    is_misspelling,
    known_fields,
)
from cloudft.spec.merge import Origin
from cloudft.spec.sections import job_model
from cloudft.spec.yaml_scalars import UntypedScalar
from cloudft.spec.yaml_source import FieldPath
from cloudft.types import Finding, Severity


class Fault(TypedDict):
    """One of pydantic's errors (`pydantic_core.ErrorDetails`), as far as it is read here."""

    type: str
    loc: tuple[int | str, ...]
    msg: str
    input: object
    ctx: Mapping[str, object]


@dataclass(frozen=True)
class SourceMap:
    """Where each value was given: its origin, and its line in the job file."""

    file: str | None
    lines: Mapping[FieldPath, int]
    origins: Mapping[FieldPath, Origin]

    def find_origin(self, path: FieldPath) -> Origin | None:
        """Return the origin of the value at `path`, of what holds it, or of its first part."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.origins:
                return self.origins[path[:length]]
        return next((o for p, o in self.origins.items() if p[: len(path)] == path), None)

    def find_line(self, path: FieldPath) -> int | None:
        """Return the line of `path` in the job file, or of the nearest section around it."""
        for length in range(len(path), 0, -1):
            if path[:length] in self.lines:
                return self.lines[path[:length]]
        return None

    def make_finding(
        self, code: str, path: FieldPath, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """Return a finding about the value at `path`, with the file and line that gave it."""
        origin = self.find_origin(path)
        field = ".".join(path)
        if origin is not None and origin.kind != "file":
            message = f"{message} (from {origin.where})"
            return Finding(severity, code, message, fix, None, None, field)
        return Finding(severity, code, message, fix, self.file, self.find_line(path), field)


def build_findings(error: ValidationError, source_map: SourceMap) -> list[Finding]:
    """Return a finding for each fault. A missing key that a misspelled one explains is left out."""
    faults = [_as_fault(details) for details in error.errors(include_url=False)]
    intended = {
        (*_path(fault)[:-1], near)
        for fault in faults
        if fault["type"] == "extra_forbidden" and (near := _find_nearest(_path(fault)))
    }
    wrong_parents = {_path(fault)[:-1] for fault in faults}

    def is_consequence(fault: Fault) -> bool:
        if fault["type"] == "too_short":  # pydantic counts valid items: the invalid ones are listed
            return _path(fault) in wrong_parents
        return fault["type"] == "missing" and _path(fault) in intended

    return [_to_finding(fault, source_map) for fault in faults if not is_consequence(fault)]


def find_faults(tree: Mapping[str, object], source_map: SourceMap) -> list[Finding]:
    """Return a finding for each value that a job file can't have."""
    try:
        job_model().model_validate(tree)
    except ValidationError as error:
        return build_findings(error, source_map)
    return []


def _as_fault(details: Mapping[str, object]) -> Fault:
    return cast(Fault, {"ctx": {}, **details})


def _path(fault: Fault) -> FieldPath:
    return tuple(str(part) for part in fault["loc"] if part != "[key]")


def _to_finding(fault: Fault, source_map: SourceMap) -> Finding:
    path = _path(fault)
    if "[key]" in fault["loc"] and fault["type"] == "literal_error":
        return _unknown_key(fault, path, source_map)
    return _BUILDERS.get(fault["type"], _other)(fault, path, source_map)


def _siblings(path: FieldPath) -> dict[str, str]:
    """Return the names and descriptions at the level that `path` is on."""
    level = MIX_PATH if path[:2] == MIX_PATH else path[:-1]
    known = known_fields()
    if level not in known and level and level[-1].isdecimal():  # an item of a list of sections
        level = level[:-1]
    return known.get(level) or known.get((*level[:-1], ANY_NAME), {})


def _find_nearest(path: FieldPath) -> str | None:
    return find_nearest_name(path[-1], _siblings(path))


def _unknown_key(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    name, known = path[-1], ", ".join(_siblings(path))
    near = _find_nearest(path)
    other = find_elsewhere(name)
    if other is not None and (near is None or not is_misspelling(name, near)):
        fix = f"move it to {other}" if "." in other else f"move {other} to the top level"
    else:
        fix = f"did you mean {near}?" if near else f"known here: {known}"
    parent = ".".join(path[:-1]) or "the job file"
    message = f"{parent} has no field {name[:100]!r} (it has {known})"
    return source_map.make_finding("UnknownKey", path, message, fix)


def _missing(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    description = _siblings(path).get(path[-1], "")
    fix = f"add `{path[-1]}: ...`" + (f" ({description})" if description else "")
    return source_map.make_finding("MissingKey", path, f"{'.'.join(path)} is missing", fix)


def _own_error(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    """Return the finding of an error that fields.py raised: `field_error` gave code and remedy."""
    what, fix = fault["ctx"]["what"], str(fault["ctx"]["fix"])
    return source_map.make_finding(fault["type"], path, f"{'.'.join(path)}: {what}", fix)


_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _out_of_range(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    bound, limit = next((_BOUNDS[k], v) for k, v in fault["ctx"].items() if k in _BOUNDS)
    message = f"{'.'.join(path)} is {fault['input']}; it must be {bound} {limit}"
    return source_map.make_finding("OutOfRange", path, message, f"give a number {bound} {limit}")


def _wrong_choice(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    expected = str(fault["ctx"]["expected"])
    choices = expected.replace("'", "").replace(" or ", ", ").split(", ")
    near = find_nearest_name(str(fault["input"]), choices)
    fix = f"did you mean {near}?" if near else f"write one of {expected}"
    message = f"{'.'.join(path)} is {_display(fault['input'])}; it must be {expected}"
    return source_map.make_finding("BadValue", path, message, fix)


def _wrong_count(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    ctx, given = fault["ctx"], fault["input"]
    bound = "at most" if ctx.get("min_length") is None else "at least"
    limit = ctx.get("min_length") or ctx.get("max_length")
    count = len(given) if isinstance(given, (list, tuple, dict)) else 0
    message = f"{'.'.join(path)} has {count} items; it must have {bound} {limit}"
    return source_map.make_finding("OutOfRange", path, message, f"name {bound} {limit}")


Builder = Callable[[Fault, FieldPath, SourceMap], Finding]


def _wrong_type(expected: str) -> Builder:
    def build(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
        value = fault["input"]
        fix = f"write {expected}"
        if value is None:
            fix = f"write {expected}, or remove the line"
        elif expected == "text" and isinstance(value, (int, float)):
            fix = f'write it in quotes: "{str(value).lower()}"'
        message = f"{'.'.join(path)} is {_display(value)}; it must be {expected}"
        return source_map.make_finding("WrongType", path, message, fix)

    return build


def _other(fault: Fault, path: FieldPath, source_map: SourceMap) -> Finding:
    if "fix" in fault["ctx"]:
        return _own_error(fault, path, source_map)
    message = f"{'.'.join(path)} is {_display(fault['input'])}: {fault['msg']}"
    fix = "correct the value; `cloudft schema` prints what is allowed"
    return source_map.make_finding("BadValue", path, message, fix)


def _display(value: object) -> str:
    if value is None:
        return "empty"
    return repr(str(value) if isinstance(value, UntypedScalar) else value)[:100]


_BUILDERS: dict[str, Builder] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "greater_than": _out_of_range,
    "greater_than_equal": _out_of_range,
    "less_than": _out_of_range,
    "less_than_equal": _out_of_range,
    "literal_error": _wrong_choice,
    "too_short": _wrong_count,
    "too_long": _wrong_count,
    "string_type": _wrong_type("text"),
    "int_type": _wrong_type("a whole number"),
    "int_from_float": _wrong_type("a whole number"),
    "float_type": _wrong_type("a number"),
    "finite_number": _wrong_type("a finite number"),
    "tuple_type": _wrong_type("a list"),
    "dict_type": _wrong_type("a mapping (name: value)"),
    "model_type": _wrong_type("a mapping (name: value)"),
}
"""pydantic's error types, each with what makes a finding of it."""
