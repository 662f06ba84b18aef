"""What pydantic refused, as findings: file, line, field, what is wrong, and the remedy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from cloudft.spec.field_index import (
    MIX_PATH,
    FieldPath,
    find_elsewhere,
    find_nearest_name,
    known_fields,
)
from cloudft.spec.merge import Origin
from cloudft.spec.yaml_scalars import UntypedScalar
from cloudft.types import Finding, Severity


@dataclass(frozen=True)
class SourceMap:
    """Where each given value stands: its origin, and its line in the job file."""

    file: str | None
    lines: Mapping[FieldPath, int]
    origins: Mapping[FieldPath, Origin]

    def find_origin(self, key: FieldPath) -> Origin | None:
        """The origin of the value at `key`, of what holds it, or of the first thing in it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.origins:
                return self.origins[key[:length]]
        return next((o for k, o in self.origins.items() if k[: len(key)] == key), None)

    def find_line(self, key: FieldPath) -> int | None:
        """The line of `key` in the job file, or of the nearest section around it."""
        for length in range(len(key), 0, -1):
            if key[:length] in self.lines:
                return self.lines[key[:length]]
        return None

    def make_finding(
        self, code: str, key: FieldPath, message: str, fix: str, severity: Severity = "error"
    ) -> Finding:
        """A finding about the value at `key`, placed where that value was given."""
        origin = self.find_origin(key)
        if origin is not None and origin.kind != "file":
            message = f"{message} (from {origin.where})"
            return Finding(severity, code, message, fix, None, None, ".".join(key))
        return Finding(severity, code, message, fix, self.file, self.find_line(key), ".".join(key))


def build_findings(refused: ValidationError, places: SourceMap) -> list[Finding]:
    """Every fault that pydantic found, once. A missing key that a typo explains is left out."""
    faults = refused.errors(include_url=False)
    findings = [_finding(fault, places) for fault in faults]
    meant = {
        (*_key(fault)[:-1], near)
        for fault in faults
        if fault["type"] == "extra_forbidden" and (near := _nearest(_key(fault)))
    }
    wrong = {_key(fault)[:-1] for fault in faults}
    return [
        finding
        for finding, fault in zip(findings, faults, strict=True)
        if not _explained(fault, meant)
        and not (fault["type"] == "too_short" and _key(fault) in wrong)  # its items are told
    ]


def _explained(fault: Mapping[str, Any], meant: set[FieldPath]) -> bool:
    return fault["type"] == "missing" and _key(fault) in meant


def _key(fault: Mapping[str, Any]) -> FieldPath:
    return tuple(str(part) for part in fault["loc"] if part != "[key]")


def _finding(fault: Mapping[str, Any], places: SourceMap) -> Finding:
    key = _key(fault)
    if "[key]" in fault["loc"] and fault["type"] == "literal_error":
        return _unknown_key(fault, key, places)
    return _SAY.get(fault["type"], _other)(fault, key, places)


def _level(key: FieldPath) -> dict[str, str]:
    """The names and descriptions at the level that `key` is on."""
    level = MIX_PATH if key[:2] == MIX_PATH else key[:-1]
    return known_fields().get(level, {})


def _nearest(key: FieldPath) -> str | None:
    return find_nearest_name(key[-1], _level(key))


def _unknown_key(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    name, known = key[-1], ", ".join(_level(key))
    near = _nearest(key)
    other = find_elsewhere(name)
    if near is None and other is not None:
        fix = f"it belongs elsewhere: {other}" if "." in other else f"{other} stands at the top"
    else:
        fix = f"did you mean {near}?" if near else f"known here: {known}"
    around = ".".join(key[:-1]) or "the job file"
    message = f"{around} has no field {name[:100]!r} (it has {known})"
    return places.make_finding("UnknownKey", key, message, fix)


def _missing(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    about = _level(key).get(key[-1], "")
    fix = f"add `{key[-1]}: ...` ({about})" if about else f"add `{key[-1]}: ...`"
    return places.make_finding("MissingKey", key, f"{'.'.join(key)} is missing", fix)


def _ours(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    ctx = fault["ctx"]
    return places.make_finding(fault["type"], key, f"{'.'.join(key)}: {ctx['what']}", ctx["fix"])


_BOUNDS = {"gt": "above", "ge": "at least", "lt": "below", "le": "at most"}


def _out_of_range(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    bound, limit = next((_BOUNDS[k], v) for k, v in fault["ctx"].items() if k in _BOUNDS)
    message = f"{'.'.join(key)} is {fault['input']}; it must be {bound} {limit}"
    return places.make_finding("OutOfRange", key, message, f"give a number {bound} {limit}")


def _choice(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    expected = fault["ctx"]["expected"]
    near = find_nearest_name(
        str(fault["input"]), expected.replace("'", "").replace(" or ", ", ").split(", ")
    )
    fix = f"did you mean {near}?" if near else f"write one of {expected}"
    message = f"{'.'.join(key)} is {_shown(fault['input'])}; it must be {expected}"
    return places.make_finding("BadValue", key, message, fix)


def _wrong_count(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    """Pydantic counts the items that were right."""
    ctx = fault["ctx"]
    bound, limit = ("at least", ctx.get("min_length")), ("at most", ctx.get("max_length"))
    word, count = limit if bound[1] is None else bound
    message = f"{'.'.join(key)} has {len(fault['input'])} items; it must have {word} {count}"
    return places.make_finding("OutOfRange", key, message, f"name {word} {count}")


def _wrong_type(what: str) -> Callable[[Mapping[str, Any], FieldPath, SourceMap], Finding]:
    def say(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
        given = fault["input"]
        fix = f"write {what}"
        if given is None:
            fix = f"write {what}, or remove the line"
        elif what == "text" and isinstance(given, (int, float)):
            fix = f'write it in quotes: "{str(given).lower()}"'
        message = f"{'.'.join(key)} is {_shown(given)}; it must be {what}"
        return places.make_finding("WrongType", key, message, fix)

    return say


def _other(fault: Mapping[str, Any], key: FieldPath, places: SourceMap) -> Finding:
    if "fix" in fault.get("ctx", {}):
        return _ours(fault, key, places)
    message = f"{'.'.join(key)} is {_shown(fault['input'])}: {fault['msg']}"
    return places.make_finding(
        "BadValue", key, message, "correct the value; `cloudft schema` tells how"
    )


def _shown(value: object) -> str:
    if value is None:
        return "empty"
    return repr(str(value) if isinstance(value, UntypedScalar) else value)[:100]


_SAY: dict[str, Callable[[Mapping[str, Any], FieldPath, SourceMap], Finding]] = {
    "missing": _missing,
    "extra_forbidden": _unknown_key,
    "greater_than": _out_of_range,
    "greater_than_equal": _out_of_range,
    "less_than": _out_of_range,
    "less_than_equal": _out_of_range,
    "literal_error": _choice,
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
