"""What a template comes to: conditions, rules and intrinsic functions with their values put in.

The functions are those that cloudft's own templates use; another one is refused by name. Source:
CloudFormation user guide, "Intrinsic function reference".
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloudft.infra.template import TemplateNode, parse_parameters, to_text

NO_VALUE = object()
"""What `AWS::NoValue` is: the property that has it is left out."""
SUBSTITUTION = re.compile(r"\$\{(!?)([^}]+)\}")


class ResolveError(ValueError):
    """A function that is not known here, or a name that the template lacks."""


@dataclass(frozen=True)
class CreatedResource:
    """A resource that is there: what `Ref` gives, and what `GetAtt` gives by name."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class TemplateScope:
    """A template with values for its parameters and its pseudo parameters (`AWS::Region`).

    `made` has the resources that are there already, by their logical names.
    """

    def __init__(
        self,
        template: TemplateNode,
        parameter_values: Mapping[str, str],
        pseudo: Mapping[str, str],
        created: Mapping[str, CreatedResource],
        availability_zones: Callable[[], list[str]] = list,
    ) -> None:
        self.template = template
        self.pseudo = pseudo
        self.created = created
        self.availability_zones = availability_zones
        known = parse_parameters(template)
        self.values = {
            name: parameter_values.get(name, p.default or "") for name, p in known.items()
        }
        self._lists = {name for name, p in known.items() if "List" in p.type}

    def is_condition_true(self, name: str) -> bool:
        """Whether a condition of the template is true."""
        conditions = self.template.get("Conditions", {})
        if name not in conditions:
            raise ResolveError(f"there is no condition {name}")
        return bool(self.resolve(conditions[name]))

    def active_resources(self) -> dict[str, TemplateNode]:
        """The resources whose condition is true."""
        return {
            name: told
            for name, told in self.template["Resources"].items()
            if "Condition" not in told or self.is_condition_true(told["Condition"])
        }

    def failed_rules(self) -> Iterator[str]:
        """The assertions of the template's rules that fail."""
        for rule in self.template.get("Rules", {}).values():
            if self.resolve(rule.get("RuleCondition", True)):
                for assertion in rule["Assertions"]:
                    if not self.resolve(assertion["Assert"]):
                        yield str(assertion["AssertDescription"])

    def resolve_outputs(self) -> dict[str, str]:
        """The outputs whose condition is true."""
        return {
            name: to_text(self.resolve(told["Value"]))
            for name, told in self.template.get("Outputs", {}).items()
            if "Condition" not in told or self.is_condition_true(told["Condition"])
        }

    def resolve(self, value: Any) -> Any:
        """A value with every function in it worked out."""
        if isinstance(value, list):
            items = [self.resolve(item) for item in value]
            return [item for item in items if item is not NO_VALUE]
        if not isinstance(value, Mapping):
            return value
        if len(value) == 1:
            [(name, argument)] = value.items()
            if name == "Condition" and isinstance(argument, str):
                return self.is_condition_true(argument)
            if name == "Ref" or str(name).startswith("Fn::"):
                return self._call_function(name, argument)
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NO_VALUE}

    def _call_function(self, name: str, argument: Any) -> Any:
        method = FUNCTIONS.get(name)
        if method is None:
            raise ResolveError(f"the function {name} is not known here")
        return method(self, argument)

    def resolve_ref(self, name: str) -> Any:
        """The value of a parameter, a pseudo parameter, or a resource that is there."""
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.values:
            value = self.values[name]
            return [v.strip() for v in value.split(",")] if name in self._lists else value
        if name in self.created:
            return self.created[name].ref
        raise ResolveError(f"{name} is no parameter, and no resource that is there")

    def resolve_get_att(self, argument: list[str]) -> str:
        """An attribute of a resource that is there."""
        name, what = argument
        made = self.created.get(name)
        if made is None or what not in made.attributes:
            raise ResolveError(f"{name} has no attribute {what}")
        return made.attributes[what]

    def resolve_sub(self, argument: Any) -> str:
        """`Fn::Sub`."""
        text, more = (argument, {}) if isinstance(argument, str) else argument

        def put(found: re.Match[str]) -> str:
            literal, name = found.groups()
            if literal:
                return "${" + name + "}"
            if name in more:
                return to_text(self.resolve(more[name]))
            head, dot, tail = name.partition(".")
            return to_text(self.resolve_get_att([head, tail]) if dot else self.resolve_ref(name))

        return SUBSTITUTION.sub(put, text)

    def resolve_if(self, argument: list[Any]) -> Any:
        """`Fn::If`: only the branch that counts is worked out."""
        condition, yes, no = argument
        return self.resolve(yes if self.is_condition_true(condition) else no)

    def resolve_equals(self, argument: list[Any]) -> bool:
        """`Fn::Equals` compares text."""
        left, right = (to_text(self.resolve(side)) for side in argument)
        return left == right

    def resolve_cidr(self, argument: list[Any]) -> list[str]:
        """`Fn::Cidr`: so many blocks with so many bits for hosts."""
        block, count, bits = (to_text(self.resolve(part)) for part in argument)
        network = ipaddress.ip_network(block, strict=False)
        subnets = network.subnets(new_prefix=network.max_prefixlen - int(bits))
        return [str(subnet) for subnet, _ in zip(subnets, range(int(count)), strict=False)]

    def resolve_select(self, argument: list[Any]) -> Any:
        """`Fn::Select`."""
        index, items = self.resolve(argument)
        return items[int(index)]

    def resolve_join(self, argument: list[Any]) -> str:
        """`Fn::Join`."""
        between, items = self.resolve(argument)
        return str(between).join(map(to_text, items))


FUNCTIONS: dict[str, Callable[[TemplateScope, Any], Any]] = {
    "Ref": TemplateScope.resolve_ref,
    "Fn::And": lambda scope, argument: all(scope.resolve(part) for part in argument),
    "Fn::Cidr": TemplateScope.resolve_cidr,
    "Fn::Contains": lambda scope, argument: (
        scope.resolve(argument[1]) in scope.resolve(argument[0])
    ),
    "Fn::Equals": TemplateScope.resolve_equals,
    "Fn::GetAZs": lambda scope, _: scope.availability_zones(),
    "Fn::GetAtt": TemplateScope.resolve_get_att,
    "Fn::If": TemplateScope.resolve_if,
    "Fn::Join": TemplateScope.resolve_join,
    "Fn::Not": lambda scope, argument: not scope.resolve(argument[0]),
    "Fn::Or": lambda scope, argument: any(scope.resolve(part) for part in argument),
    "Fn::Select": TemplateScope.resolve_select,
    "Fn::Split": lambda scope, argument: scope.resolve(argument[1]).split(argument[0]),
    "Fn::Sub": TemplateScope.resolve_sub,
}


def find_references(value: Any, names: Mapping[str, Any]) -> set[str]:
    """The resources among `names` that a value refers to."""
    if isinstance(value, list):
        return {name for item in value for name in find_references(item, names)}
    if not isinstance(value, Mapping):
        return set()
    found = {name for item in value.values() for name in find_references(item, names)}
    if isinstance(value.get("Ref"), str):
        found |= {value["Ref"]} & names.keys()
    if isinstance(value.get("Fn::GetAtt"), list):
        found |= {value["Fn::GetAtt"][0]} & names.keys()
    if "Fn::Sub" in value:
        argument = value["Fn::Sub"]
        text = argument if isinstance(argument, str) else argument[0]
        used = {n.partition(".")[0] for literal, n in SUBSTITUTION.findall(text) if not literal}
        found |= used & names.keys()
    return found


def sort_by_dependency(resources: Mapping[str, TemplateNode]) -> list[str]:
    """The resources' names, each behind those that it refers to or depends on."""
    waiting = {name: _dependencies(told, resources) for name, told in resources.items()}
    done: list[str] = []
    while waiting:
        ready = [name for name, on in waiting.items() if on <= set(done)]
        if not ready:
            raise ResolveError(f"these wait for each other: {', '.join(sorted(waiting))}")
        done += ready
        for name in ready:
            del waiting[name]
    return done


def _dependencies(told: TemplateNode, resources: Mapping[str, TemplateNode]) -> set[str]:
    on = told.get("DependsOn", [])
    named = {on} if isinstance(on, str) else set(on)
    return find_references(told.get("Properties", {}), resources) | (named & resources.keys())
