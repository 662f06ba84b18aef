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
ALLOWED, IMPLICIT, EXPLICIT = "allowed", "implicitDeny", "explicitDeny"
VARIABLE = re.compile(r"\$\{([^}]+)\}")


@dataclass(frozen=True)
class Request:
    """What somebody wants to do: `s3:GetObject`, the resource's ARN, and the keys of conditions."""

    action: str
    resource: str
    context: Mapping[str, str | Sequence[str]]


def statements(document: Mapping[str, Any]) -> list[Statement]:
    """Those of a policy: one alone stands without a list."""
    found = document.get("Statement", [])
    return [found] if isinstance(found, Mapping) else list(found)


def decide(
    policies: Iterable[Statement], request: Request, boundary: Sequence[Statement] | None = None
) -> str:
    """`allowed`, `implicitDeny` or `explicitDeny`. Raises ValueError for an unknown condition."""
    effects = {s["Effect"] for s in policies if _applies(s, request)}
    within = {"Allow"}
    if boundary is not None:
        within = {s["Effect"] for s in boundary if _applies(s, request)}
    if "Deny" in effects | within:
        return EXPLICIT
    return ALLOWED if "Allow" in effects and "Allow" in within else IMPLICIT


def trusts(
    document: Mapping[str, Any], service: str, context: Mapping[str, str | Sequence[str]]
) -> bool:
    """Whether a trust policy lets the service take a role on."""
    request = Request("sts:AssumeRole", "", context)
    effects = {
        s["Effect"]
        for s in statements(document)
        if service in _list(_principals(s)) and _action(s, request) and _conditions(s, request)
    }
    return effects == {"Allow"}


def _principals(statement: Statement) -> Any:
    principal = statement.get("Principal", {})
    return principal.get("Service", []) if isinstance(principal, Mapping) else []


def _applies(statement: Statement, request: Request) -> bool:
    return (
        _action(statement, request)
        and _resource(statement, request)
        and _conditions(statement, request)
    )


def _action(statement: Statement, request: Request) -> bool:
    if "NotAction" in statement:
        return not any(like(p, request.action, fold=True) for p in _list(statement["NotAction"]))
    return any(like(p, request.action, fold=True) for p in _list(statement["Action"]))


def _resource(statement: Statement, request: Request) -> bool:
    key = "NotResource" if "NotResource" in statement else "Resource"
    patterns = [_filled(p, request) for p in _list(statement.get(key, ()))]
    found = any(p is not None and like(p, request.resource) for p in patterns)
    return not found if key == "NotResource" else found


def _filled(pattern: str, request: Request) -> str | None:
    """A pattern with its variables put in; None where one has no value: it matches nothing."""
    names = VARIABLE.findall(pattern)
    values = {name: _first(request, name) for name in names}
    if None in values.values():
        return None
    return VARIABLE.sub(lambda found: str(values[found[1]]), pattern)


def _first(request: Request, name: str) -> str | None:
    if name in ("*", "?", "$"):
        return f"[{name}]"
    values = _values(request, name)
    return values[0] if values else None


def _values(request: Request, name: str) -> list[str] | None:
    """The values of a key, whose name may be in capitals or not; None where it is not there."""
    for key, value in request.context.items():
        if key.lower() == name.lower():
            return _list(value)
    return None


def _list(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def like(pattern: str, text: str, *, fold: bool = False) -> bool:
    """Whether a text has the form of a pattern with `*` and `?`."""
    return _form(pattern, fold).fullmatch(text) is not None


@functools.lru_cache(maxsize=4096)
def _form(pattern: str, fold: bool) -> re.Pattern[str]:
    parts = re.split(r"(\*|\?)", pattern)
    form = "".join({"*": ".*", "?": "."}.get(part, re.escape(part)) for part in parts)
    return re.compile(form, re.DOTALL | (re.IGNORECASE if fold else 0))


def _arn_like(pattern: str, text: str) -> bool:
    """As `like`, each of the six parts of an ARN by itself."""
    wanted, given = pattern.split(":", 5), text.split(":", 5)
    return len(wanted) == len(given) and all(map(like, wanted, given))


OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": lambda wanted, given: wanted == given,
    "StringEqualsIgnoreCase": lambda wanted, given: wanted.lower() == given.lower(),
    "StringLike": like,
    "ArnEquals": _arn_like,
    "ArnLike": _arn_like,
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


def _conditions(statement: Statement, request: Request) -> bool:
    return all(
        _condition(operator, key, _list(_texts(wanted)), request)
        for operator, keys in statement.get("Condition", {}).items()
        for key, wanted in keys.items()
    )


def _texts(wanted: Any) -> list[str]:
    items = wanted if isinstance(wanted, list) else [wanted]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in items]


def _condition(operator: str, key: str, wanted: list[str], request: Request) -> bool:
    given = _values(request, key)
    quantifier, _, rest = operator.rpartition(":")
    plain = rest.removesuffix("IfExists")
    if plain == "Null":
        return (given is None) == (wanted == ["true"])
    if plain not in OPERATORS and plain not in NEGATED:
        raise ValueError(f"the condition operator {operator} is not known here")
    if not given:
        missing_is_true = rest != plain or quantifier == "ForAllValues" or plain in NEGATED
        return missing_is_true and quantifier != "ForAnyValue"
    test = _test(plain, [w for p in wanted if (w := _filled(p, request)) is not None])
    return all(map(test, given)) if quantifier == "ForAllValues" else any(map(test, given))


def _test(plain: str, wanted: list[str]) -> Callable[[str], bool]:
    """Whether one value fulfils an operator; a negated one: none of what is wanted may match."""
    match = OPERATORS[NEGATED.get(plain, plain)]
    if plain in NEGATED:
        return lambda given: not any(match(one, given) for one in wanted)
    return lambda given: any(match(one, given) for one in wanted)
