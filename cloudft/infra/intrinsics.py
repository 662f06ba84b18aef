"""Resolve a template: conditions, rules and intrinsic functions, for given parameter values.

Supports the functions that cloudft's own templates use; any other raises ResolveError. Source:
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
"""The value of `AWS::NoValue`: a property with it is left out."""
SUBSTITUTION = re.compile(r"\$\{(!?)([^}]+)\}")


class ResolveError(ValueError):
    """An unsupported function, or a name that the template does not define."""


@dataclass(frozen=True)
class CreatedResource:
    """An existing resource: the value of `Ref`, and the values of `GetAtt` by attribute."""

    ref: str
    attributes: Mapping[str, str] = field(default_factory=dict)


class TemplateScope:
    """A template with values for its parameters and its pseudo parameters (`AWS::Region`).

    `created` has the existing resources by logical name.
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
        """Return whether a condition of the template is true."""
        conditions = self.template.get("Conditions", {})
        if name not in conditions:
            raise ResolveError(f"there is no condition {name}")
        return bool(self.resolve(conditions[name]))

    def active_resources(self) -> dict[str, TemplateNode]:
        """Return the resources whose condition is true."""
        return {
            name: resource
            for name, resource in self.template["Resources"].items()
            if self._is_active(resource)
        }

    def _is_active(self, element: TemplateNode) -> bool:
        """Return whether a resource or an output has no condition, or a true one."""
        return "Condition" not in element or self.is_condition_true(element["Condition"])

    def failed_rules(self) -> Iterator[str]:
        """Yield the descriptions of the rules' assertions that fail."""
        for rule in self.template.get("Rules", {}).values():
            if self.resolve(rule.get("RuleCondition", True)):
                for assertion in rule["Assertions"]:
                    if not self.resolve(assertion["Assert"]):
                        yield str(assertion["AssertDescription"])

    def resolve_outputs(self) -> dict[str, str]:
        """Return the outputs whose condition is true."""
        return {
            name: to_text(self.resolve(output["Value"]))
            for name, output in self.template.get("Outputs", {}).items()
            if self._is_active(output)
        }

    def resolve(self, value: Any) -> Any:
        """Return a value with every function in it resolved."""
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
            raise ResolveError(f"the function {name} is not supported")
        return method(self, argument)

    def resolve_ref(self, name: str) -> Any:
        """Resolve `Ref`: a parameter, a pseudo parameter, or an existing resource."""
        if name == "AWS::NoValue":
            return NO_VALUE
        if name in self.pseudo:
            return self.pseudo[name]
        if name in self.values:
            value = self.values[name]
            return [v.strip() for v in value.split(",")] if name in self._lists else value
        if name in self.created:
            return self.created[name].ref
        raise ResolveError(f"{name} is neither a parameter nor an existing resource")

    def resolve_get_att(self, argument: list[str]) -> str:
        """Resolve `Fn::GetAtt`: an attribute of an existing resource."""
        name, attribute = argument
        resource = self.created.get(name)
        if resource is None or attribute not in resource.attributes:
            raise ResolveError(f"{name} has no attribute {attribute}")
        return resource.attributes[attribute]

    def resolve_sub(self, argument: Any) -> str:
        """Resolve `Fn::Sub`: a text, or a text and a mapping of variables."""
        text, variables = (argument, {}) if isinstance(argument, str) else argument

        def substitute(match: re.Match[str]) -> str:
            literal, name = match.groups()
            if literal:  # `${!x}` stands for the text `${x}`
                return "${" + name + "}"
            if name in variables:
                return to_text(self.resolve(variables[name]))
            head, dot, tail = name.partition(".")
            return to_text(self.resolve_get_att([head, tail]) if dot else self.resolve_ref(name))

        return SUBSTITUTION.sub(substitute, text)

    def resolve_if(self, argument: list[Any]) -> Any:
        """Resolve `Fn::If`: only the branch that applies, because the other may not resolve."""
        condition, yes, no = argument
        return self.resolve(yes if self.is_condition_true(condition) else no)

    def resolve_equals(self, argument: list[Any]) -> bool:
        """Resolve `Fn::Equals`, which compares values as text."""
        left, right = (to_text(self.resolve(side)) for side in argument)
        return left == right

    def resolve_cidr(self, argument: list[Any]) -> list[str]:
        """Resolve `Fn::Cidr`: split a block into `count` subnets with `bits` host bits each."""
        block, count, bits = (to_text(self.resolve(part)) for part in argument)
        network = ipaddress.ip_network(block, strict=False)
        subnets = network.subnets(new_prefix=network.max_prefixlen - int(bits))
        return [str(subnet) for subnet, _ in zip(subnets, range(int(count)), strict=False)]

    def resolve_select(self, argument: list[Any]) -> Any:
        """Resolve `Fn::Select`."""
        index, items = self.resolve(argument)
        return items[int(index)]

    def resolve_join(self, argument: list[Any]) -> str:
        """Resolve `Fn::Join`."""
        separator, items = self.resolve(argument)
        return str(separator).join(map(to_text, items))


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


def list_references(value: object) -> Iterator[str]:
    """Yield each name that a value refers to: of a resource, a parameter or a pseudo parameter."""
    if isinstance(value, list):
        for item in value:
            yield from list_references(item)
    if not isinstance(value, Mapping):
        return
    for item in value.values():
        yield from list_references(item)
    if isinstance(value.get("Ref"), str):
        yield value["Ref"]
    if isinstance(value.get("Fn::GetAtt"), list) and value["Fn::GetAtt"]:
        yield str(value["Fn::GetAtt"][0])
    if "Fn::Sub" in value:
        yield from _substituted_names(value["Fn::Sub"])


def _substituted_names(argument: object) -> Iterator[str]:
    """Yield the names in a text with substitutions, without those that it defines itself."""
    text, own = argument, {}
    if isinstance(argument, list) and len(argument) == 2 and isinstance(argument[1], Mapping):
        text, own = argument
    for literal, name in SUBSTITUTION.findall(str(text)):
        if not literal and name not in own:
            yield name.partition(".")[0]


def find_references(value: object, names: Mapping[str, object]) -> set[str]:
    """Return the resources among `names` that a value refers to."""
    return set(list_references(value)) & names.keys()


def sort_by_dependency(resources: Mapping[str, TemplateNode]) -> list[str]:
    """Return the resources' names, each after those that it refers to or depends on.

    Raises ResolveError for a cycle.
    """
    waiting = {name: _dependencies(resources[name], resources) for name in resources}
    done: list[str] = []
    while waiting:
        ready = [name for name, on in waiting.items() if on <= set(done)]
        if not ready:
            raise ResolveError(f"circular dependency between {', '.join(sorted(waiting))}")
        done += ready
        for name in ready:
            del waiting[name]
    return done


def _dependencies(resource: TemplateNode, resources: Mapping[str, TemplateNode]) -> set[str]:
    depends_on = resource.get("DependsOn", [])
    named = {depends_on} if isinstance(depends_on, str) else set(depends_on)
    return find_references(resource.get("Properties", {}), resources) | (named & resources.keys())
