"""Evaluate IAM policies: which actions they allow, deny, or leave denied.

Implemented are identity policies, a permissions boundary, trust policies, wildcards, policy
variables, and the condition operators of `OPERATORS` and `NEGATED`. Not implemented are an
organization's policies, session policies and resource policies. A condition operator that is not
implemented is an error, never a guess. Source: IAM user guide, "Policy evaluation logic" and
"Condition operators".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

PolicyDocument: TypeAlias = Mapping[str, Any]
"""A policy as parsed JSON."""
Statement: TypeAlias = Mapping[str, Any]
"""One statement of a policy, as parsed JSON."""
ConditionContext: TypeAlias = Mapping[str, str | Sequence[str]]
"""The values of condition keys; their names may be in any case."""
ALLOWED, IMPLICIT_DENY, EXPLICIT_DENY = "allowed", "implicitDeny", "explicitDeny"
"""Decisions, as the policy simulator names them."""
POLICY_VARIABLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class AccessRequest:
    """An action such as `s3:GetObject`, the ARN of its resource, and the condition keys."""

    action: str
    resource: str
    context: ConditionContext


def list_statements(document: PolicyDocument) -> list[Statement]:
    """Return the statements of a policy; a single one may be written without a list."""
    statements = document.get("Statement", [])
    return [statements] if isinstance(statements, Mapping) else list(statements)


def evaluate_policies(
    policies: Iterable[Statement],
    request: AccessRequest,
    boundary: Sequence[Statement] | None = None,
) -> str:
    """Return `allowed`, `implicitDeny` or `explicitDeny`.

    `boundary` has the statements of the permissions boundary; None if there is none. Raises
    ValueError for a condition operator that is not implemented.
    """
    effects = {s["Effect"] for s in policies if _matches(s, request)}
    within = {"Allow"}
    if boundary is not None:
        within = {s["Effect"] for s in boundary if _matches(s, request)}
    # A deny anywhere wins. A boundary grants nothing: both it and the policies must allow.
    if "Deny" in effects | within:
        return EXPLICIT_DENY
    return ALLOWED if "Allow" in effects and "Allow" in within else IMPLICIT_DENY


def allows_assume_role(document: PolicyDocument, service: str, context: ConditionContext) -> bool:
    """Return whether a trust policy lets the service assume its role."""
    request = AccessRequest("sts:AssumeRole", "", context)
    # A trust policy has principals instead of resources.
    effects = {
        s["Effect"]
        for s in list_statements(document)
        if service in _as_list(_service_principals(s))
        and _matches_action(s, request)
        and _meets_conditions(s, request)
    }
    return effects == {"Allow"}


def _service_principals(statement: Statement) -> str | Iterable[str]:
    principal = statement.get("Principal", {})
    if not isinstance(principal, Mapping):
        return []
    services: str | Iterable[str] = principal.get("Service", [])
    return services


def _matches(statement: Statement, request: AccessRequest) -> bool:
    return (
        _matches_action(statement, request)
        and _matches_resource(statement, request)
        and _meets_conditions(statement, request)
    )


def _matches_action(statement: Statement, request: AccessRequest) -> bool:
    # Actions are compared without case, resources with it.
    if "NotAction" in statement:
        return not any(
            matches_wildcard(p, request.action, ignore_case=True)
            for p in _as_list(statement["NotAction"])
        )
    return any(
        matches_wildcard(p, request.action, ignore_case=True) for p in _as_list(statement["Action"])
    )


def _matches_resource(statement: Statement, request: AccessRequest) -> bool:
    key = "NotResource" if "NotResource" in statement else "Resource"
    patterns = [_substitute_variables(p, request) for p in _as_list(statement.get(key, ()))]
    # A pattern whose variable has no value matches no resource, also in NotResource.
    matches = any(p is not None and matches_wildcard(p, request.resource) for p in patterns)
    return not matches if key == "NotResource" else matches


def _substitute_variables(pattern: str, request: AccessRequest) -> str | None:
    """Return a pattern with the values of its variables.

    None if a variable has no value: then the pattern matches nothing.
    """
    names = POLICY_VARIABLE.findall(pattern)
    values = {name: _variable_value(request, name) for name in names}
    if None in values.values():
        return None
    return POLICY_VARIABLE.sub(lambda variable: str(values[variable[1]]), pattern)


def _variable_value(request: AccessRequest, name: str) -> str | None:
    # `${*}` is a literal asterisk. The pattern becomes a regular expression later, and a set of one
    # character stays literal there.
    if name in ("*", "?", "$"):
        return f"[{name}]"
    values = _context_values(request, name)
    return values[0] if values else None


def _context_values(request: AccessRequest, name: str) -> list[str] | None:
    """Return the values of a condition key, whatever its case; None if the request lacks it."""
    for key, value in request.context.items():
        if key.lower() == name.lower():
            return _as_list(value)
    return None


def _as_list(value: str | Iterable[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def matches_wildcard(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Return whether a text matches a pattern: `*` is any characters, `?` any one."""
    return _wildcard_regex(pattern, ignore_case).fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _wildcard_regex(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    parts = re.split(r"(\*|\?)", pattern)
    regex = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.compile(regex, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _matches_arn(pattern: str, arn: str) -> bool:
    """Return whether an ARN matches a pattern, each of its six parts by itself.

    A `*` can't match across the colons between them.
    """
    pattern_parts, arn_parts = pattern.split(":", 5), arn.split(":", 5)
    return len(pattern_parts) == len(arn_parts) and all(
        map(matches_wildcard, pattern_parts, arn_parts)
    )


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda expected, actual: expected == actual,
    "StringEqualsIgnoreCase": lambda expected, actual: expected.lower() == actual.lower(),
    "StringLike": matches_wildcard,
    "ArnEquals": _matches_arn,
    "ArnLike": _matches_arn,
    "Bool": lambda expected, actual: expected.lower() == actual.lower(),
    "NumericEquals": lambda expected, actual: float(expected) == float(actual),
    "NumericLessThan": lambda expected, actual: float(actual) < float(expected),
    "NumericLessThanEquals": lambda expected, actual: float(actual) <= float(expected),
    "NumericGreaterThan": lambda expected, actual: float(actual) > float(expected),
    "NumericGreaterThanEquals": lambda expected, actual: float(actual) >= float(expected),
}
"""Condition operator -> whether a value of the policy matches one of the request."""
NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}
"""Negated condition operator -> the operator that it negates."""


def _meets_conditions(statement: Statement, request: AccessRequest) -> bool:
    return all(
        _meets_condition(operator, key, _as_texts(expected), request)
        for operator, keys in statement.get("Condition", {}).items()
        for key, expected in keys.items()
    )


def _as_texts(values: object) -> list[str]:
    """Return a condition's values as text; JSON's `true` is `true`, not Python's `True`."""
    items = values if isinstance(values, list) else [values]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def _meets_condition(operator: str, key: str, expected: list[str], request: AccessRequest) -> bool:
    """Return whether a request meets one condition. `ForAllValues:StringLikeIfExists` has parts."""
    actual = _context_values(request, key)
    quantifier, _, rest = operator.rpartition(":")
    base = rest.removesuffix("IfExists")
    if base == "Null":
        return (actual is None) == (expected == ["true"])
    if base not in OPERATORS and base not in NEGATED:
        raise ValueError(f"the condition operator {operator} is not implemented")
    if not actual:
        # A missing key meets an IfExists or negated operator, and ForAllValues over no values.
        is_met = rest != base or quantifier == "ForAllValues" or base in NEGATED
        return is_met and quantifier != "ForAnyValue"
    patterns = [p for text in expected if (p := _substitute_variables(text, request)) is not None]
    test = _value_test(base, patterns)
    return all(map(test, actual)) if quantifier == "ForAllValues" else any(map(test, actual))


def _value_test(operator: str, expected: list[str]) -> Callable[[str], bool]:
    """Return the test of one value of the request; a negated operator allows no match at all."""
    matches = OPERATORS[NEGATED.get(operator, operator)]
    if operator in NEGATED:
        return lambda actual: not any(matches(one, actual) for one in expected)
    return lambda actual: any(matches(one, actual) for one in expected)
