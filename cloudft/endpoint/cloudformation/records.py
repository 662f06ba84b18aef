"""What the endpoint keeps of a stack: its resources, its events, its change sets."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


@dataclass
class StackResource:
    """One resource of a stack, as it is. `keep` holds on deletion: its DeletionPolicy."""

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
    """Something that happened to a stack or to one of its resources."""

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
    """A stack."""

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

    @property
    def is_deleted(self) -> bool:
        """True of a stack that was deleted."""
        return self.status == "DELETE_COMPLETE"

    @property
    def is_in_progress(self) -> bool:
        """True while something is done to it."""
        return self.status.endswith("IN_PROGRESS") and self.status != "REVIEW_IN_PROGRESS"

    def record_status(
        self, status: str, reason: str | None = None, token: str | None = None
    ) -> None:
        """The stack itself has come to a state."""
        self.status, self.reason = status, reason
        kind = "AWS::CloudFormation::Stack"
        self.events.append(StackEvent(self.name, self.arn, kind, status, reason, token))

    def record_resource_status(
        self, piece: StackResource, status: str, reason: str | None = None, token: str | None = None
    ) -> None:
        """One of its resources has."""
        piece.status, piece.reason, piece.changed = status, reason, now()
        self.events.append(
            StackEvent(piece.logical, piece.physical, piece.type, status, reason, token)
        )


@dataclass
class Change:
    """What a change set would do to one resource."""

    action: str
    logical: str
    type: str
    physical: str = ""
    replacement: str | None = None


@dataclass
class ChangeSetRecord:
    """What would be done to a stack, and whether it was."""

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
