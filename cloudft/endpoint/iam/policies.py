"""What IAM policies allow: the evaluation logic, over plain statements.

It knows identity policies, a permissions boundary, trust policies, wildcards, policy variables and
the condition operators of `OPERATORS`. It knows no organisation's policies, no session policies and
no policies of resources. A condition that it does not know is an error, never a guess. Source: IAM
user guide, "Policy evaluation logic" and "Condition operators".
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Statement = Mapping[str, Any]
ALLOWED, IMPLICIT_DENY, EXPLICIT_DENY = "allowed", "implicitDeny", "explicitDeny"
POLICY_VARIABLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class AccessRequest:
    """What somebody wants to do: `s3:GetObject`, the resource's ARN, and the keys of conditions."""

    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]]


def list_statements(document: Mapping[str, Any]) -> list[Statement]:
    """Those of a policy: one alone stands without a list."""
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def evaluate_policies(
    policies: Iterable[Statement],
    request: AccessRequest,
    boundary: Sequence[Statement] | None = None,
) -> str:
    """`allowed`, `implicitDeny` or `explicitDeny`. Raises ValueError for an unknown condition."""
    effects = {s["Effect"] for s in policies if _matches(s, request)}
    within = {"Allow"}
    if boundary is not None:
        within = {s["Effect"] for s in boundary if _matches(s, request)}
    if "Deny" in effects | within:
        return EXPLICIT_DENY
    return ALLOWED if "Allow" in effects and "Allow" in within else IMPLICIT_DENY


def allows_assume_role(
    document: Mapping[str, Any], service: str, context: Mapping[str, str | Sequence[str]]
) -> bool:
    """Whether a trust policy lets the service take a role on."""
    request = AccessRequest("sts:AssumeRole", "", context)
    effects = {
        s["Effect"]
        for s in list_statements(document)
        if service in _as_list(_service_principals(s))
        and _matches_action(s, request)
        and _meets_conditions(s, request)
    }
    return effects == {"Allow"}


def _service_principals(statement: Statement) -> Any:
    principal = statement.get("Principal", {})
    return principal.get("Service", []) if isinstance(principal, Mapping) else []


def _matches(statement: Statement, request: AccessRequest) -> bool:
    return (
        _matches_action(statement, request)
        and _matches_resource(statement, request)
        and _meets_conditions(statement, request)
    )


def _matches_action(statement: Statement, request: AccessRequest) -> bool:
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
    found = any(p is not None and matches_wildcard(p, request.resource) for p in patterns)
    return not found if key == "NotResource" else found


def _substitute_variables(pattern: str, request: AccessRequest) -> str | None:
    """A pattern with its variables put in; None where one has no value: it matches nothing."""
    names = POLICY_VARIABLE.findall(pattern)
    values = {name: _variable_value(request, name) for name in names}
    if None in values.values():
        return None
    return POLICY_VARIABLE.sub(lambda found: str(values[found[1]]), pattern)


def _variable_value(request: AccessRequest, name: str) -> str | None:
    if name in ("*", "?", "$"):
        return f"[{name}]"
    values = _context_values(request, name)
    return values[0] if values else None


def _context_values(request: AccessRequest, name: str) -> list[str] | None:
    """The values of a key, whose name may be in capitals or not; None where it is not there."""
    for key, value in request.context.items():
        if key.lower() == name.lower():
            return _as_list(value)
    return None


def _as_list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def matches_wildcard(pattern: str, text: str, *, ignore_case: bool = False) -> bool:
    """Whether a text has the form of a pattern with `*` and `?`."""
    return _wildcard_regex(pattern, ignore_case).fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _wildcard_regex(pattern: str, ignore_case: bool) -> re.Pattern[str]:
    parts = re.split(r"(\*|\?)", pattern)
    form = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.compile(form, re.DOTALL | (re.IGNORECASE if ignore_case else 0))


def _matches_arn(pattern: str, text: str) -> bool:
    """As `like`, each of the six parts of an ARN by itself."""
    wanted, given = pattern.split(":", 5), text.split(":", 5)
    return len(wanted) == len(given) and all(map(matches_wildcard, wanted, given))


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, given: wanted == given,
    "StringEqualsIgnoreCase": lambda wanted, given: wanted.lower() == given.lower(),
    "StringLike": matches_wildcard,
    "ArnEquals": _matches_arn,
    "ArnLike": _matches_arn,
    "Bool": lambda wanted, given: wanted.lower() == given.lower(),
    "NumericEquals": lambda wanted, given: float(wanted) == float(given),
    "NumericLessThan": lambda wanted, given: float(given) < float(wanted),
    "NumericLessThanEquals": lambda wanted, given: float(given) <= float(wanted),
    "NumericGreaterThan": lambda wanted, given: float(given) > float(wanted),
    "NumericGreaterThanEquals": lambda wanted, given: float(given) >= float(wanted),
}
NEGATED = {
    "StringNotEquals": "StringEquals",
    "StringNotEqualsIgnoreCase": "StringEqualsIgnoreCase",
    "StringNotLike": "StringLike",
    "ArnNotEquals": "ArnEquals",
    "ArnNotLike": "ArnLike",
    "NumericNotEquals": "NumericEquals",
}


def _meets_conditions(statement: Statement, request: AccessRequest) -> bool:
    return all(
        _meets_condition(operator, key, _as_list(_as_texts(wanted)), request)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _as_texts(wanted: Any) -> list[str]:
    items = wanted if isinstance(wanted, list) else [wanted]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def _meets_condition(operator: str, key: str, wanted: list[str], request: AccessRequest) -> bool:
    given = _context_values(request, key)
    quantifier, _, rest = operator.rpartition(":")
    plain = rest.removesuffix("IfExists")
    if plain == "Null":
        return (given is None) == (wanted == ["true"])
    if plain not in OPERATORS and plain not in NEGATED:
        raise ValueError(f"the condition operator {operator} is not known here")
    if not given:
        missing_is_true = rest != plain or quantifier == "ForAllValues" or plain in NEGATED
        return missing_is_true and quantifier != "ForAnyValue"
    test = _value_test(
        plain, [w for p in wanted if (w := _substitute_variables(p, request)) is not None]
    )
    return all(map(test, given)) if quantifier == "ForAllValues" else any(map(test, given))


def _value_test(plain: str, wanted: list[str]) -> Callable[[str], bool]:
    """Whether one value fulfils an operator; a negated one: none of what is wanted may match."""
    match = OPERATORS[NEGATED.get(plain, plain)]
    if plain in NEGATED:
        return lambda given: not any(match(one, given) for one in wanted)
    return lambda given: any(match(one, given) for one in wanted)
