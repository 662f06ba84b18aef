"""Read CloudFormation templates: YAML with its short tags, parameters, and their constraints.

Source of the rules: CloudFormation user guide, "Template sections" and "Parameters".
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any

import yaml

from cloudft.errors import StoreError, UsageError

TemplateNode = Mapping[str, Any]
"""A mapping within a template: its values are any JSON or functions (`{Ref: x}`)."""
PACKAGED = Path(__file__).parent / "templates"
CHECKOUT = Path(__file__).parents[2] / "infra"


def find_templates_folder() -> Path:
    """Return the folder of the templates: in the package, or `infra/` at the top of a checkout."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def list_templates() -> list[str]:
    """Return the names of cloudft's templates."""
    return sorted(path.stem for path in find_templates_folder().glob("*.yaml"))


def load_template_text(name: str) -> str:
    """Return a template as it is deployed. Raises UsageError for an unknown name."""
    if name not in list_templates():
        names = " or ".join(list_templates())
        raise UsageError(f"there is no template {name}", fix=f"use {names}.")
    path = find_templates_folder() / f"{name}.yaml"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fix = "reinstall cloudft."
        raise StoreError(f"can't read {path}: {error.strerror}", fix=fix) from error


MAX_BODY_BYTES = 51_200
"""Largest template in a request, in bytes (CloudFormation user guide, "Quotas")."""


def format_request_body(text: str) -> str:
    """Return the template unchanged or, when it is too long for a request, as compact JSON.

    Both have the same content. Raises UsageError for a template that is too long in either form: it
    would have to be in a bucket, and there is none before the first stack.
    """
    if len(text.encode()) <= MAX_BODY_BYTES:
        return text
    compact = json.dumps(parse_template(text), ensure_ascii=False, separators=(",", ":"))
    if (size := len(compact.encode())) > MAX_BODY_BYTES:
        message = f"the template has {size} bytes, and CloudFormation accepts {MAX_BODY_BYTES}"
        raise UsageError(message, fix="upload it to a bucket and deploy it by its URL.")
    return compact


class _Loader(yaml.SafeLoader):
    """Load YAML with short tags (`!Ref x`) as their long forms (`{Ref: x}`)."""


def _construct_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, object]:
    value: object
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        assert isinstance(node, yaml.MappingNode)
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _construct_tag)


def parse_template(text: str) -> dict[str, Any]:
    """Return the template as plain data. Raises ValueError for text that is not a template."""
    try:
        template = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"invalid YAML: {error}") from error
    if not isinstance(template, dict) or not isinstance(template.get("Resources"), dict):
        raise ValueError("not a template: it has no Resources")
    return template


@dataclass(frozen=True)
class Parameter:
    """One parameter of a template. `default` is None for a required one."""

    name: str
    type: str
    default: str | None
    description: str
    declaration: TemplateNode


def parse_parameters(template: TemplateNode) -> dict[str, Parameter]:
    """Return the template's parameters by name, in its order."""
    return {
        name: Parameter(
            name,
            str(declaration["Type"]),
            to_text(declaration["Default"]) if "Default" in declaration else None,
            str(declaration.get("Description", "")),
            declaration,
        )
        for name, declaration in template.get("Parameters", {}).items()
    }


def to_text(value: object) -> str:
    """Return a value as CloudFormation stores it: as text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def find_parameter_errors(
    template: TemplateNode, values: Mapping[str, str], *, require_all: bool = True
) -> Iterator[str]:
    """Yield what is wrong with the values of parameters; a missing value means the default.

    Without `require_all`, a parameter without a default may be missing.
    """
    known = parse_parameters(template)
    for name in values:
        if name not in known:
            yield f"unknown parameter {name} (known: {', '.join(known)})"
    for name, parameter in known.items():
        value = values.get(name, parameter.default)
        if value is None:
            if require_all:
                yield f"the parameter {name} is required: it has no default"
        elif (rule := _find_broken_rule(parameter, value)) is not None:
            description = parameter.declaration.get("ConstraintDescription")
            yield f"the parameter {name} is {value!r}; it must be {description or rule}"


def _find_broken_rule(parameter: Parameter, value: str) -> str | None:
    """Return the rule that a value breaks."""
    declaration = parameter.declaration
    allowed = [to_text(choice) for choice in declaration.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"one of {', '.join(allowed)}"
    pattern = declaration.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        return f"a match of {pattern}"
    return _find_broken_number_rule(declaration, value) if parameter.type == "Number" else None


def _find_broken_number_rule(declaration: TemplateNode, value: str) -> str | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return "a number"
    minimum, maximum = declaration.get("MinValue"), declaration.get("MaxValue")
    if not number.is_finite():
        return "a finite number"
    if minimum is not None and number < Decimal(to_text(minimum)):
        return f"at least {minimum}"
    if maximum is not None and number > Decimal(to_text(maximum)):
        return f"at most {maximum}"
    return None
