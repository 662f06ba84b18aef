"""Permissions as values, and IAM's policy simulator asked about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cloudft.aws.client import Aws
from cloudft.types import Severity


@dataclass(frozen=True)
class RequiredPermission:
    """An action on resources, with the keys of conditions that it comes with.

    A `*` stands for names that are not known yet, such as those of objects to come: a statement
    grants all of them, and the simulator is asked about one. A value that is a tuple has all that a
    job comes with. `grants` is the resource of the statement where it is another one. `severity` is
    `warning` where the resource's own policy may allow it, which can't be simulated.
    """

    action: str
    resource: str
    context_keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    severity: Severity = "error"
    statement_resource: str = ""

    def as_simulated(self) -> RequiredPermission:
        """The same of one resource and one request, as the simulator and IAM itself get it."""
        resource = self.resource if self.resource == "*" else _fill_wildcards(self.resource)
        context = {key: _simulated_value(key, value) for key, value in self.context_keys.items()}
        return replace(self, resource=resource, context_keys=context)


@dataclass(frozen=True)
class ArnContext:
    """Where the job runs: the parts of its ARNs."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str, *, account: bool = True) -> str:
        """The ARN of something of this Region."""
        owner = self.account if account else ""
        return f"arn:{self.partition}:{service}:{self.region}:{owner}:{resource}"

    def bucket_arn(self, name: str, key: str = "") -> str:
        """The ARN of a bucket, or of an object in it."""
        return f"arn:{self.partition}:s3:::{name}{f'/{key}' if key else ''}"


MULTI_VALUED_KEYS = {"aws:TagKeys"}
"""Keys that a request has several values of."""
CONDITION_OPERATORS = {
    "aws:TagKeys": "ForAllValues:StringEquals",
    "kms:GrantIsForAWSResource": "Bool",
}
"""The condition operator of a key; StringLike is that of all others."""


def _fill_wildcards(pattern: str) -> str:
    return pattern.replace("*", "x")


def _simulated_value(key: str, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _fill_wildcards(value)
    return value if key in MULTI_VALUED_KEYS else _fill_wildcards(value[0])


def policy_statement(permission: RequiredPermission) -> dict[str, Any]:
    """A statement that allows all of it that a job may ask for, and no more."""
    resource = permission.statement_resource or permission.resource
    said: dict[str, Any] = {"Effect": "Allow", "Action": permission.action, "Resource": resource}
    conditions: dict[str, dict[str, Any]] = {}
    for key, value in permission.context_keys.items():
        several = list(value) if isinstance(value, tuple) else value
        conditions.setdefault(CONDITION_OPERATORS.get(key, "StringLike"), {})[key] = several
    return {**said, "Condition": conditions} if conditions else said


def denied_permissions(
    aws: Aws, principal: str, permissions: Iterable[RequiredPermission]
) -> Iterator[tuple[RequiredPermission, str]]:
    """Each that is not allowed, with `implicitDeny` or `explicitDeny`.

    What concerns one thing under one context is asked at once: the simulator is slow to be asked.
    """
    groups: dict[tuple[str, ...], list[RequiredPermission]] = {}
    for need in permissions:
        one = need.as_simulated()
        context = [f"{key}={value}" for key, value in one.context_keys.items()]
        groups.setdefault((one.resource, *context), []).append(need)
    for group in groups.values():
        told = _decisions(aws, principal, group)
        yield from ((n, told[n.action]) for n in group if told[n.action] != "allowed")


def _decisions(aws: Aws, principal: str, group: Sequence[RequiredPermission]) -> dict[str, str]:
    one = group[0].as_simulated()
    answer = aws.call(
        f"the permission {one.action} can't be simulated",
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=principal,
        ActionNames=[need.action for need in group],
        ResourceArns=[one.resource],
        ContextEntries=_context_entries(one.context_keys),
    )
    results = answer["EvaluationResults"]
    return {str(one["EvalActionName"]): str(one["EvalDecision"]) for one in results}


def _context_entries(context: Mapping[str, str | tuple[str, ...]]) -> list[dict[str, Any]]:
    return [
        {
            "ContextKeyName": key,
            "ContextKeyValues": [value] if isinstance(value, str) else list(value),
            "ContextKeyType": _context_key_type(key),
        }
        for key, value in context.items()
    ]


def _context_key_type(key: str) -> str:
    """The simulator's type of a key; those of keys with several values are lists."""
    return {"aws:TagKeys": "stringList", "kms:GrantIsForAWSResource": "boolean"}.get(key, "string")


def principal_arn(arn: str) -> str:
    """The user or role whose policies hold: that of a session is its role."""
    head, sts, tail = arn.partition(":assumed-role/")
    if not sts:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{tail.partition('/')[0]}"
