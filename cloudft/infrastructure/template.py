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

Tree = Mapping[str, Any]
PACKAGED = Path(__file__).parent / "templates"
CHECKOUT = Path(__file__).parents[2] / "infra"


def folder() -> Path:
    """Where the templates are: in the package, or in a checkout its top-level folder infra/."""
    return PACKAGED if PACKAGED.is_dir() else CHECKOUT


def names() -> list[str]:
    """The templates that cloudft brings, by their names."""
    return sorted(path.stem for path in folder().glob("*.yaml"))


def text_of(name: str) -> str:
    """The template as it is deployed. Raises UsageError for a name that there is not."""
    if name not in names():
        raise UsageError(f"there is no template {name}", fix=f"take {' or '.join(names())}.")
    path = folder() / f"{name}.yaml"
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        fix = "install cloudft again."
        raise StoreError(f"{path} can't be read: {error.strerror}", fix=fix) from error


BODY_MAX = 51_200
"""Bytes of a template that goes with the request (CloudFormation user guide, "Quotas")."""


def body(text: str) -> str:
    """The template as a request carries it: as it is, or as JSON without spaces when it is long.

    Both say the same. Raises UsageError for one that is too long in either form: that would have to
    lie in a bucket, and there is none before the first stack.
    """
    if len(text.encode()) <= BODY_MAX:
        return text
    short = json.dumps(parse(text), ensure_ascii=False, separators=(",", ":"))
    if (size := len(short.encode())) > BODY_MAX:
        message = f"the template has {size} bytes, and CloudFormation takes {BODY_MAX}"
        raise UsageError(message, fix="put it into a bucket and deploy it by its URL.")
    return short


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref x`) are read as their long forms (`{Ref: x}`)."""


def _tag(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
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


_Loader.add_multi_constructor("!", _tag)


def parse(text: str) -> dict[str, Any]:
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
    declared: Tree


def parameters(template: Tree) -> dict[str, Parameter]:
    """What may be set, by name, in the template's order."""
    return {
        name: Parameter(
            name,
            str(told["Type"]),
            word(told["Default"]) if "Default" in told else None,
            str(told.get("Description", "")),
            told,
        )
        for name, told in template.get("Parameters", {}).items()
    }


def word(value: Any) -> str:
    """A value as CloudFormation keeps it: text."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def faults(template: Tree, given: Mapping[str, str]) -> Iterator[str]:
    """What is wrong with the values of parameters; those not given have their defaults."""
    known = parameters(template)
    for name in given:
        if name not in known:
            yield f"there is no parameter {name} (there are {', '.join(known)})"
    for name, parameter in known.items():
        value = given.get(name, parameter.default)
        if value is None:
            yield f"the parameter {name} has no default and must be given"
        elif (rule := _broken(parameter, value)) is not None:
            told = parameter.declared.get("ConstraintDescription")
            yield f"the parameter {name} is {value!r}; it must be {told or rule}"


def _broken(parameter: Parameter, value: str) -> str | None:
    """The rule that a value breaks."""
    told = parameter.declared
    allowed = [word(choice) for choice in told.get("AllowedValues", ())]
    if allowed and value not in allowed:
        return f"one of {', '.join(allowed)}"
    pattern = told.get("AllowedPattern")
    if pattern is not None and not re.fullmatch(pattern, value):
        return f"of the form {pattern}"
    return _broken_number(told, value) if parameter.type == "Number" else None


def _broken_number(told: Tree, value: str) -> str | None:
    try:
        number = Decimal(value)
    except InvalidOperation:
        return "a number"
    least, most = told.get("MinValue"), told.get("MaxValue")
    if not number.is_finite():
        return "a finite number"
    if least is not None and number < Decimal(word(least)):
        return f"at least {least}"
    if most is not None and number > Decimal(word(most)):
        return f"at most {most}"
    return None
