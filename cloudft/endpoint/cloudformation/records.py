"""What the endpoint stores of a stack: resources, events, change sets.

Field names are those of the state file `endpoint.json`.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


@dataclass
class StackResource:
    """The current state of a resource.

    `logical` and `physical` are its ids, `attributes` what `Fn::GetAtt` returns, `policy` its
    DeletionPolicy, and `changed` the time of its last status.
    """

    logical: str
    type: str
    properties: dict[str, Any]
    physical: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    status: str = "CREATE_IN_PROGRESS"
    reason: str | None = None
    policy: str = "Delete"
    changed: datetime = field(default_factory=now)


@dataclass
class StackEvent:
    """A status that a stack or one of its resources entered. `token` is the ClientRequestToken."""

    logical: str
    physical: str
    type: str
    status: str
    reason: str | None = None
    token: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    at: datetime = field(default_factory=now)


@dataclass
class StackRecord:
    """A stack. `pieces` are its resources by logical id; `protected` is termination protection.

    `role` is the RoleARN, which is only reported: all calls here have the endpoint's own rights.
    `keeps_failed` says that the last operation was to leave a failure as it is (DisableRollback).
    """

    arn: str
    name: str
    status: str = "REVIEW_IN_PROGRESS"
    reason: str | None = None
    template: str = ""
    parameters: dict[str, str] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    pieces: dict[str, StackResource] = field(default_factory=dict)
    events: list[StackEvent] = field(default_factory=list)
    created: datetime = field(default_factory=now)
    updated: datetime | None = None
    deleted: datetime | None = None
    protected: bool = False
    description: str | None = None
    role: str | None = None
    keeps_failed: bool = False

    @property
    def is_deleted(self) -> bool:
        """Return whether the stack was deleted."""
        return self.status == "DELETE_COMPLETE"

    @property
    def is_in_progress(self) -> bool:
        """Return whether an operation on the stack is in progress."""
        return self.status.endswith("IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    def record_status(
        self, status: str, reason: str | None = None, token: str | None = None
    ) -> None:
        """Set the stack's own status, and add its event."""
        self.status, self.reason = status, reason
        kind = "AWS::CloudFormation::Stack"
        self.events.append(StackEvent(self.name, self.arn, kind, status, reason, token))

    def record_resource_status(
        self,
        resource: StackResource,
        status: str,
        reason: str | None = None,
        token: str | None = None,
    ) -> None:
        """Set the status of one resource, and add its event."""
        resource.status, resource.reason, resource.changed = status, reason, now()
        self.events.append(
            StackEvent(resource.logical, resource.physical, resource.type, status, reason, token)
        )


@dataclass
class Change:
    """What a change set would do to one resource (`Add`, `Modify`, `Remove`)."""

    action: str
    logical: str
    type: str
    physical: str = ""
    replacement: str | None = None


@dataclass
class ChangeSetRecord:
    """The changes that a template and its parameters would make to a stack.

    `stack` is the stack's ARN, `kind` is CREATE or UPDATE, `execution` the ExecutionStatus, `token`
    the ClientToken of the request, and `on_failure` what a failure does: ROLLBACK, DO_NOTHING or
    DELETE.
    """

    arn: str
    name: str
    stack: str
    kind: str
    template: str
    parameters: dict[str, str]
    tags: dict[str, str]
    changes: list[Change]
    status: str = "CREATE_COMPLETE"
    reason: str | None = None
    execution: str = "AVAILABLE"
    token: str | None = None
    created: datetime = field(default_factory=now)
    description: str | None = None
    role: str | None = None
    on_failure: str = "ROLLBACK"
