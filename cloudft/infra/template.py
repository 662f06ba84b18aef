"""A CloudFormation template as data: YAML with its short tags, parameters, and their constraints.

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
PACKAGED = Path(__file__).parent / "templates"
CHECKOUT = Path(__file__).parents[2] / "infra"


def find_templates_folder() -> Path:
    """Where the templates are: in the package, or in a checkout its top-level folder infra/."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def list_templates() -> list[str]:
    """The templates that cloudft brings, by their names."""
    return sorted(path.stem for path in find_templates_folder().glob("*.yaml"))


def load_template_text(name: str) -> str:
    """The template as it is deployed. Raises UsageError for a name that there is not."""
    if name not in list_templates():
        raise UsageError(
            f"there is no template {name}", fix=f"take {' or '.join(list_templates())}."
        )
    path = find_templates_folder() / f"{name}.yaml"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fix = "install cloudft again."
        raise StoreError(f"{path} can't be read: {error.strerror}", fix=fix) from error


MAX_BODY_BYTES = 51_200
"""Bytes of a template that goes with the request (CloudFormation user guide, "Quotas")."""


def format_request_body(text: str) -> str:
    """The template as a request carries it: as it is, or as JSON without spaces when it is long.

    Both say the same. Raises UsageError for one that is too long in either form: that would have to
    lie in a bucket, and there is none before the first stack.
    """
    if len(text.encode()) <= MAX_BODY_BYTES:
        return text
    short = json.dumps(parse_template(text), ensure_ascii=False, separators=(",", ":"))
    if (size := len(short.encode())) > MAX_BODY_BYTES:
        message = f"the template has {size} bytes, and CloudFormation takes {MAX_BODY_BYTES}"
        raise UsageError(message, fix="put it into a bucket and deploy it by its URL.")
    return short


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref x`) are read as their long forms (`{Ref: x}`)."""


def _construct_tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    value: Any
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
    """The template as plain data. Raises ValueError for text that is none."""
    try:
        found = yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(f"no YAML: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("Resources"), dict):
        raise ValueError("no template: it has no Resources")
    return found


@dataclass(frozen=True)
class Parameter:
    """One parameter of a template. `default` None: it must be given."""

    name: str
    type: str
    default: str | None
    description: str
    declaration: TemplateNode


def parse_parameters(template: TemplateNode) -> dict[str, Parameter]:
    """What may be set, by name, in the template's order."""
    return {
        name: Parameter(
            name,
            str(told["Type"]),
            to_text(told["Default"]) if "Default" in told else None,
            str(told.get("Description", "")),
            told,
        )
        for name, told in template.get("Parameters", {}).items()
    }


def to_text(value: Any) -> str:
    """A value as CloudFormation keeps it: text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def find_parameter_errors(template: TemplateNode, values: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the values of parameters; those not given have their defaults."""
    known = parse_parameters(template)
    for name in values:
        if name not in known:
            yield f"there is no parameter {name} (there are {', '.join(known)})"
    for name, parameter in known.items():
        value = values.get(name, parameter.default)
        if value is None:
            yield f"the parameter {name} has no default and must be given"
        elif (rule := _find_broken_rule(parameter, value)) is not None:
            told = parameter.declaration.get("ConstraintDescription")
            yield f"the parameter {name} is {value!r}; it must be {told or rule}"


def _find_broken_rule(parameter: Parameter, value: str) -> str | None:
    """The rule that a value breaks."""
    told = parameter.declaration
    allowed = [to_text(choice) for choice in told.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"one of {', '.join(allowed)}"
    pattern = told.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        return f"of the form {pattern}"
    return _find_broken_number_rule(told, value) if parameter.type == "Number" else None


def _find_broken_number_rule(told: TemplateNode, value: str) -> str | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return "a number"
    least, most = told.get("MinValue"), told.get("MaxValue")
    if not number.is_finite():
        return "a finite number"
    if least is not None and number < Decimal(to_text(least)):
        return f"at least {least}"
    if most is not None and number > Decimal(to_text(most)):
        return f"at most {most}"
    return None
