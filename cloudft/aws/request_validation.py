"""Validate requests as a service does: lengths, ranges, patterns and enums.

Botocore validates types and required members, not these. Source of every rule: botocore's service
models. The messages have the form of AWS's own.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Iterator, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel, Shape

OWN_MODELS = Path(__file__).parent / "service_models"
"""Models of services that botocore lacks, in the form of botocore's."""

SAFE_PATTERNS = {
    r"[a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])*": r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*",
    r"[a-zA-Z0-9]{1,63}(-*[a-zA-Z0-9\+\-\.]){0,63}": r"[a-zA-Z0-9][a-zA-Z0-9+.\-]*",
    r"[a-z0-9](-*[a-z0-9]){0,62}": r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?",
}
"""Published patterns that backtrack exponentially in Python, and linear patterns that match the
same. Some are one of several alternatives in a longer pattern."""

UNLISTED_VALUES = {"EvaluationTaskType": frozenset({"General"})}
"""Values that a service takes although botocore's enum (1.44.5) lacks them, by shape. Source of
"General": Bedrock user guide, "Create a model evaluation job using built-in metrics"."""


@functools.cache
def service_model_loader() -> Loader:
    """Return botocore's loader of service models, with cloudft's own; it reads each of them once.

    Each client has a session of its own, because a session keeps its credentials and a new login
    must count. The models are what is expensive to read, so the sessions share this loader.
    """
    from botocore.loaders import create_loader

    loader = create_loader(os.environ.get("AWS_DATA_PATH"))
    loader.search_paths.append(str(OWN_MODELS))  # last: a model of botocore's wins
    return loader


@functools.lru_cache(maxsize=8)
def load_service_model(service: str) -> ServiceModel:
    """Return botocore's model of the service, or cloudft's own where botocore has none."""
    from botocore.model import ServiceModel

    return ServiceModel(service_model_loader().load_service_model(service, "service-2"), service)


def validate_request(service: str, operation: str, parameters: Mapping[str, object]) -> list[str]:
    """Return every violation of the service model in a request's parameters."""
    from botocore.validate import ParamValidator

    shape = load_service_model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(dict(parameters), shape)
    if report.has_errors():
        return [str(line) for line in report.generate_report().splitlines()]
    return list(constraint_violations(shape, parameters))


def constraint_violations(shape: Shape, parameters: Mapping[str, object]) -> Iterator[str]:
    """Yield each violated constraint of a structure whose members are all in its model."""
    yield from _check_structure(shape, parameters, "")


def _check_structure(shape: Shape, value: Mapping[str, object], path: str) -> Iterator[str]:
    prefix = f"{path}." if path else ""
    for name in shape.required_members:
        if value.get(name) is None:
            yield _violation(None, prefix + name, "Member must not be null")
    if getattr(shape, "is_tagged_union", False) and len(value) != 1:
        yield _violation(None, path, "Exactly one member must be set")
    for name, item in value.items():
        yield from _check_value(shape.members[name], item, prefix + name)


def _check_value(shape: Shape, value: object, path: str) -> Iterator[str]:
    if getattr(shape, "is_document_type", False):  # free-form JSON
        return
    kind = shape.type_name
    if kind == "structure" and isinstance(value, Mapping):
        yield from _check_structure(shape, value, path)
    elif kind == "list" and isinstance(value, (list, tuple)):
        yield from _check_length(shape, value, path)
        for index, item in enumerate(value):
            yield from _check_value(shape.member, item, f"{path}.{index + 1}.member")
    elif kind == "map" and isinstance(value, Mapping):
        yield from _check_length(shape, value, path)
        for key, item in value.items():
            yield from _check_value(shape.key, key, f"{path}.key")
            yield from _check_value(shape.value, item, f"{path}.{key}.member")
    elif kind == "string" and isinstance(value, str):
        yield from _check_string(shape, value, path)
    elif kind in ("integer", "long", "float", "double") and isinstance(value, (int, float)):
        yield from _check_range(shape, value, path)


def _check_string(shape: Shape, value: str, path: str) -> Iterator[str]:
    yield from _check_length(shape, value, path)
    if shape.enum and value not in shape.enum and value not in UNLISTED_VALUES.get(shape.name, ()):
        allowed = ", ".join(shape.enum)
        yield _violation(value, path, f"Member must satisfy enum value set: [{allowed}]")
    pattern = shape.metadata.get("pattern")
    compiled = _compile_pattern(pattern) if pattern else None
    if compiled is not None and not compiled.fullmatch(value):
        rule = f"Member must satisfy regular expression pattern: {pattern}"
        yield _violation(value, path, rule)


@functools.cache
def _compile_pattern(pattern: str) -> re.Pattern[str] | None:
    for slow, linear in SAFE_PATTERNS.items():
        pattern = pattern.replace(slow, linear)
    try:
        return re.compile(pattern)
    except re.error:  # a few use \p{..}, which Python lacks; none is on a field that cloudft sends
        return None


def _check_length(shape: Shape, value: Sized, path: str) -> Iterator[str]:
    least, most, size = shape.metadata.get("min"), shape.metadata.get("max"), len(value)
    if least is not None and size < least:
        rule = f"Member must have length greater than or equal to {least}"
        yield _violation(value, path, rule)
    if most is not None and size > most:
        yield _violation(value, path, f"Member must have length less than or equal to {most}")


def _check_range(shape: Shape, value: float, path: str) -> Iterator[str]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if least is not None and value < least:
        yield _violation(value, path, f"Member must have value greater than or equal to {least}")
    if most is not None and value > most:
        yield _violation(value, path, f"Member must have value less than or equal to {most}")


def _violation(value: object, path: str, rule: str) -> str:
    shown = "" if value is None else f"'{str(value)[:200]}' "
    return f"Value {shown}at '{path}' failed to satisfy constraint: {rule}"
