"""What a service checks and botocore does not: lengths, ranges, patterns, enums.

Source of every rule: botocore's service model. The messages have the form of AWS's own.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterator, Mapping
from typing import Any

SAFE_PATTERNS = {
    r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*": r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*",
    r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\+\-\.]){0,63}": r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*",
    r"[a-z0-9](-*[a-z0-9]){0,62}": r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
}
"""Published patterns that backtrack exponentially in Python, and their linear equals. Some stand
as one of several alternatives in a longer pattern."""


@functools.lru_cache(maxsize=8)
def load_service_model(service: str) -> Any:
    """Botocore's model of the service."""
    import botocore.session

    return botocore.session.get_session().get_service_model(service)


def validate_request(service: str, operation: str, parameters: Mapping[str, Any]) -> list[str]:
    """Everything that is wrong with a request, as far as the service model tells."""
    from botocore.validate import ParamValidator

    shape = load_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(dict(parameters), shape)
    if report.has_errors():
        return [str(line) for line in report.generate_report().splitlines()]
    return list(constraint_violations(shape, parameters))


def constraint_violations(shape: Any, parameters: Mapping[str, Any]) -> Iterator[str]:
    """Every broken constraint of a structure whose members are known to it."""
    yield from _check_structure(shape, parameters, "")


def _check_structure(shape: Any, value: Mapping[str, Any], path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield _violation(None, prefix + name, "Member must not be null")
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield _violation(None, path, "Exactly one member must be set")
    for name, item in value.items():
        yield from _check_value(shape.members[name], item, prefix + name)


def _check_value(shape: Any, value: Any, path: str) -> Iterator[str]:
    kind = shape.type_name
    if getattr(shape, "is_document_type", False):
        return
    if kind == "structure":
        yield from _check_structure(shape, value, path)
    elif kind == "list":
        yield from _check_length(shape, value, len(value), path)
        for index, item in enumerate(value):
            yield from _check_value(shape.member, item, f"{path}.{index + 1}.member")
    elif kind == "map":
        yield from _check_length(shape, value, len(value), path)
        for key, item in value.items():
            yield from _check_value(shape.key, key, f"{path}.key")
            yield from _check_value(shape.value, item, f"{path}.{key}.member")
    elif kind == "string":
        yield from _check_string(shape, value, path)
    elif kind in ("integer", "long", "float", "double"):
        yield from _check_range(shape, value, path)


def _check_string(shape: Any, value: str, path: str) -> Iterator[str]:
    yield from _check_length(shape, value, len(value), path)
    if shape.enum and value not in shape.enum:
        allowed = ", ".join(shape.enum)
        yield _violation(value, path, f"Member must satisfy enum value set: [{allowed}]")
    pattern = shape.metadata.get("pattern")
    compiled = _compile_pattern(pattern) if pattern else None
    if compiled is not None and not compiled.fullmatch(value):
        yield _violation(value, path, f"Member must satisfy regular expression pattern: {pattern}")


@functools.cache
def _compile_pattern(pattern: str) -> re.Pattern[str] | None:
    for slow, quick in SAFE_PATTERNS.items():
        pattern = pattern.replace(slow, quick)
    try:
        return re.compile(pattern)
    except re.error:  # a few have \p{..}, which Python lacks; none is on a field of ours
        return None


def _check_length(shape: Any, value: Any, size: int, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and size < least:
        rule = f"Member must have length greater than or equal to {least}"
        yield _violation(value, path, rule)
    if most is not None and size > most:
        yield _violation(value, path, f"Member must have length less than or equal to {most}")


def _check_range(shape: Any, value: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield _violation(value, path, f"Member must have value greater than or equal to {least}")
    if most is not None and value > most:
        yield _violation(value, path, f"Member must have value less than or equal to {most}")


def _violation(value: Any, path: str, rule: str) -> str:
    shown = "" if value is None else f"'{str(value)[:200]}' "
    return f"Value {shown}at '{path}' failed to satisfy constraint: {rule}"
