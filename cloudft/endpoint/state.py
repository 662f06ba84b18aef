"""What the endpoint holds: jobs, models, what serves them, tags. In memory, behind one lock."""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from cloudft.endpoint.training import Run

ACCOUNT = "000000000000"
"""No AWS account has this number: it is plain that this is not AWS."""
RUNNING = frozenset({"InProgress", "Stopping"})
ID_CHARACTERS = string.ascii_lowercase + string.digits


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def new_id() -> str:
    """The last part of an ARN: 12 characters, as Bedrock's are."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(12))


@dataclass
class Job:
    """A customization job: what was asked, and where it is."""

    arn: str
    request: Mapping[str, Any]
    base_model_arn: str
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    ended: datetime | None = None
    status: str = "InProgress"
    details: dict[str, dict[str, Any]] = field(default_factory=dict)
    failure: str | None = None
    training_loss: float | None = None
    validation_losses: tuple[float, ...] = ()
    model_arn: str | None = None
    run: Run | None = None

    def enter(self, details: Mapping[str, str]) -> None:
        """Note where each phase is, and when it came there."""
        for phase, status in details.items():
            known = self.details.get(phase)
            if status != "NotStarted" and (known is None or known["status"] != status):
                self.modified = now()
                began = known["creationTime"] if known else self.modified
                times = {"creationTime": began, "lastModifiedTime": self.modified}
                self.details[phase] = {"status": status, **times}

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.request["jobName"])

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.arn.rpartition("/")[2]


@dataclass
class Model:
    """A custom model. `job` is the one that made it."""

    arn: str
    name: str
    job: Job
    created: datetime = field(default_factory=now)


@dataclass
class Serving:
    """An on-demand deployment, or (with `units`) provisioned throughput."""

    arn: str
    name: str
    model_arn: str
    created: datetime = field(default_factory=now)
    description: str | None = None
    units: int = 0
    commitment: str | None = None


@dataclass
class State:
    """All of it, for one Region."""

    region: str
    lock: threading.RLock = field(default_factory=threading.RLock)
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    deployments: dict[str, Serving] = field(default_factory=dict)
    throughputs: dict[str, Serving] = field(default_factory=dict)
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[tuple[str, str], tuple[Mapping[str, Any], str]] = field(default_factory=dict)

    def arn(self, kind: str, *rest: str) -> str:
        """A new ARN of that kind."""
        tail = "/".join((kind, *rest, new_id()))
        return f"arn:aws:bedrock:{self.region}:{ACCOUNT}:{tail}"

    def running(self) -> list[Job]:
        """The jobs that have not ended."""
        return [job for job in self.jobs.values() if job.status in RUNNING]

    def tag(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Put tags on something."""
        self.tags.setdefault(arn, {}).update({tag["key"]: tag["value"] for tag in tags})


def found(things: Mapping[str, Any], identifier: str) -> Any:
    """The thing of that ARN or name; None when there is none."""
    if identifier in things:
        return things[identifier]
    return next((thing for thing in things.values() if thing.name == identifier), None)
