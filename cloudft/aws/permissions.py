"""IAM permissions as values, and IAM's policy simulator."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict

from cloudft.aws.client import Aws
from cloudft.types import Severity


class _AllowStatement(TypedDict):
    Effect: str
    Action: str | list[str]
    Resource: str | list[str]


class Statement(_AllowStatement, total=False):
    """A statement of an IAM policy."""

    Sid: str
    Condition: dict[str, dict[str, str | list[str]]]


class Policy(TypedDict):
    """An IAM policy document."""

    Version: str
    Statement: list[Statement]


@dataclass(frozen=True)
class RequiredPermission:
    """An action on a resource, with the condition keys that its requests carry.

    A `*` in `resource` stands for names that are not known yet, such as those of objects to come:
    the policy statement allows all of them, and the simulator is called with one. A value in
    `context_keys` that is a tuple has every value that the job's requests carry.
    `statement_resource` is the resource of the policy statement where it differs. `severity` is
    `warning` where the resource's own policy may allow the action, which can't be simulated.
    """

    action: str
    resource: str
    context_keys: Mapping[str, str | tuple[str, ...]] = field(default_factory=dict)
    severity: Severity = "error"
    statement_resource: str = ""

    def as_simulated(self) -> RequiredPermission:
        """Return this permission for one resource and one request, as the simulator takes it."""
        resource = self.resource if self.resource == "*" else _fill_wildcards(self.resource)
        context = {key: _simulated_value(key, value) for key, value in self.context_keys.items()}
        return replace(self, resource=resource, context_keys=context)


@dataclass(frozen=True)
class ArnContext:
    """Partition, Region and account of a job's ARNs."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str, *, account: bool = True) -> str:
        """Return the ARN of a resource in this Region; `account=False` leaves the account out."""
        owner = self.account if account else ""
        return f"arn:{self.partition}:{service}:{self.region}:{owner}:{resource}"

    def bucket_arn(self, name: str, key: str = "") -> str:
        """Return the ARN of a bucket, or of an object in it."""
        return f"arn:{self.partition}:s3:::{name}{f'/{key}' if key else ''}"


MULTI_VALUED_KEYS = {"aws:TagKeys"}
"""Condition keys that have several values in one request."""
CONDITION_OPERATORS = {
    "aws:TagKeys": "ForAllValues:StringEquals",
    "kms:GrantIsForAWSResource": "Bool",
}
"""Condition operator by key; StringLike for all others."""
CONTEXT_KEY_TYPES = {"aws:TagKeys": "stringList", "kms:GrantIsForAWSResource": "boolean"}
"""The simulator's type by condition key; string for all others."""


def _fill_wildcards(pattern: str) -> str:
    return pattern.replace("*", "x")


def _simulated_value(key: str, value: str | tuple[str, ...]) -> str | tuple[str, ...]:
    if isinstance(value, str):
        return _fill_wildcards(value)
    return value if key in MULTI_VALUED_KEYS else _fill_wildcards(value[0])


def policy_statement(permission: RequiredPermission) -> Statement:
    """Return the policy statement that allows exactly what the permission needs."""
    resource = permission.statement_resource or permission.resource
    statement: Statement = {"Effect": "Allow", "Action": permission.action, "Resource": resource}
    conditions: dict[str, dict[str, str | list[str]]] = {}
    for key, value in permission.context_keys.items():
        operator = CONDITION_OPERATORS.get(key, "StringLike")
        values = list(value) if isinstance(value, tuple) else value
        conditions.setdefault(operator, {})[key] = values
    if conditions:
        statement["Condition"] = conditions
    return statement


def denied_permissions(
    aws: Aws, principal: str, permissions: Iterable[RequiredPermission]
) -> Iterator[tuple[RequiredPermission, str]]:
    """Yield each permission that `principal` lacks, with `implicitDeny` or `explicitDeny`.

    Permissions on one resource with one context are simulated in one call, because each call of the
    simulator is slow.
    """
    groups: dict[tuple[str, ...], list[RequiredPermission]] = {}
    for permission in permissions:
        simulated = permission.as_simulated()
        context = [f"{key}={value}" for key, value in simulated.context_keys.items()]
        groups.setdefault((simulated.resource, *context), []).append(permission)
    for group in groups.values():
        decisions = _decisions(aws, principal, group)
        for permission in group:
            if decisions[permission.action] != "allowed":
                yield permission, decisions[permission.action]


def _decisions(aws: Aws, principal: str, group: Sequence[RequiredPermission]) -> dict[str, str]:
    """Return the simulator's decision for each action of a group."""
    simulated = group[0].as_simulated()
    response = aws.call(
        f"the permission {simulated.action} can't be simulated",
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=principal,
        ActionNames=[permission.action for permission in group],
        ResourceArns=[simulated.resource],
        ContextEntries=_context_entries(simulated.context_keys),
    )
    results = response["EvaluationResults"]
    return {str(result["EvalActionName"]): str(result["EvalDecision"]) for result in results}


def _context_entries(
    context: Mapping[str, str | tuple[str, ...]],
) -> list[dict[str, str | list[str]]]:
    return [
        {
            "ContextKeyName": key,
            "ContextKeyValues": [value] if isinstance(value, str) else list(value),
            "ContextKeyType": CONTEXT_KEY_TYPES.get(key, "string"),
        }
        for key, value in context.items()
    ]


def principal_arn(arn: str) -> str:
    """Return the ARN of the user or role whose policies apply: for a session, that of its role."""
    head, assumed, tail = arn.partition(":assumed-role/")
    if not assumed:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{tail.partition('/')[0]}"
