"""Permissions as values, and IAM's policy simulator asked about them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cloudft.aws.client import Aws
from cloudft.types import Severity


@dataclass(frozen=True)
class Need:
    """An action on a resource, with the keys of conditions that it comes with.

    `severity` is `warning` where the resource's own policy may allow it, which can't be simulated.
    """

    action: str
    resource: str
    context: Mapping[str, str] = field(default_factory=dict)
    severity: Severity = "error"


@dataclass(frozen=True)
class Place:
    """Where the job runs: the parts of its ARNs."""

    partition: str
    region: str
    account: str

    def arn(self, service: str, resource: str, *, account: bool = True) -> str:
        """The ARN of something of this Region."""
        owner = self.account if account else ""
        return f"arn:{self.partition}:{service}:{self.region}:{owner}:{resource}"

    def bucket(self, name: str, key: str = "") -> str:
        """The ARN of a bucket, or of an object in it."""
        return f"arn:{self.partition}:s3:::{name}{f'/{key}' if key else ''}"


def statement(need: Need) -> dict[str, Any]:
    """A statement that allows it, and no more of it than is asked."""
    said: dict[str, Any] = {"Effect": "Allow", "Action": need.action, "Resource": need.resource}
    if need.context:
        said["Condition"] = {"StringLike": dict(need.context)}
    return said


def refused(aws: Aws, principal: str, wanted: Iterable[Need]) -> Iterator[tuple[Need, str]]:
    """Each that is not allowed, with `implicitDeny` or `explicitDeny`.

    What concerns one thing under one context is asked at once: the simulator is slow to be asked.
    """
    groups: dict[tuple[str, ...], list[Need]] = {}
    for need in wanted:
        context = [f"{key}={value}" for key, value in need.context.items()]
        groups.setdefault((need.resource, *context), []).append(need)
    for group in groups.values():
        told = _decisions(aws, principal, group)
        yield from ((n, told[n.action]) for n in group if told[n.action] != "allowed")


def _decisions(aws: Aws, principal: str, group: Sequence[Need]) -> dict[str, str]:
    answer = aws.call(
        f"the permission {group[0].action} can't be simulated",
        "iam",
        "simulate_principal_policy",
        PolicySourceArn=principal,
        ActionNames=[need.action for need in group],
        ResourceArns=[group[0].resource],
        ContextEntries=_entries(group[0].context),
    )
    results = answer["EvaluationResults"]
    return {str(one["EvalActionName"]): str(one["EvalDecision"]) for one in results}


def _entries(context: Mapping[str, str]) -> list[dict[str, Any]]:
    return [
        {"ContextKeyName": key, "ContextKeyValues": [value], "ContextKeyType": _type(key)}
        for key, value in context.items()
    ]


def _type(key: str) -> str:
    """The simulator's type of a key; those of keys with several values are lists."""
    return {"aws:TagKeys": "stringList", "kms:GrantIsForAWSResource": "boolean"}.get(key, "string")


def principal_of(arn: str) -> str:
    """The user or role whose policies hold: that of a session is its role."""
    head, sts, tail = arn.partition(":assumed-role/")
    if not sts:
        return arn
    return f"{head.replace(':sts:', ':iam:')}:role/{tail.partition('/')[0]}"
