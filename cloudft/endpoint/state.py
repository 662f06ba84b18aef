"""What the endpoint holds: jobs, models, what serves them, tags. Behind one lock; kept in one file.

The file is replaced in one step after each change, before the caller is answered.
"""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state_file import VERSION, read_state
from cloudft.storage.atomic_files import as_store_error, atomic_write

ACCOUNT = "000000000000"
"""No AWS account has this number: it is plain that this is not AWS."""
STATE_FILE = "endpoint.json"
JOB_NAME_IN_USE = "The provided job name is currently in use."
RUNNING = frozenset({"InProgress", "Stopping"})
ID_CHARACTERS = string.ascii_lowercase + string.digits


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(timezone.utc)


def new_id() -> str:
    """The last part of an ARN: 12 characters, as Bedrock's are."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(12))


@dataclass
class Phase:
    """One of `statusDetails`: its word, and when it came there."""

    status: str
    created: datetime
    modified: datetime


@dataclass
class Job:
    """A customization job: what was asked, and where it is."""

    arn: str
    request: dict[str, Any]
    base_model_arn: str
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    ended: datetime | None = None
    status: str = "InProgress"
    details: dict[str, Phase] = field(default_factory=dict)
    failure: str | None = None
    training_loss: float | None = None
    validation_losses: tuple[float, ...] = ()
    model_arn: str | None = None
    local: str | None = None
    """The job of the local backend that trains it."""

    def update_phases(self, details: Mapping[str, str]) -> bool:
        """Note where each phase is, and when it came there; True when something is new."""
        changed = False
        for phase, status in details.items():
            known = self.details.get(phase)
            if status != "NotStarted" and (known is None or known.status != status):
                self.modified = now()
                began = known.created if known else self.modified
                self.details[phase] = Phase(status, began, self.modified)
                changed = True
        return changed

    @property
    def name(self) -> str:
        """The job's name."""
        return str(self.request["jobName"])

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.arn.rpartition("/")[2]


@dataclass
class Task:
    """A job of another kind: an import, a copy, a batch of questions."""

    arn: str
    name: str
    request: dict[str, Any]
    status: str = "InProgress"
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    ended: datetime | None = None
    failure: str | None = None
    model_arn: str | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def finish(self, status: str, failure: str | None = None) -> None:
        """It has come to its end."""
        self.status, self.failure = status, failure
        self.ended = self.modified = now()

    @property
    def id(self) -> str:
        """The last part of its ARN."""
        return self.arn.rpartition("/")[2]


@dataclass
class TrainingJob:
    """A training job of SageMaker: what was asked, and where it is."""

    arn: str
    name: str
    request: dict[str, Any]
    status: str = "InProgress"
    second: str = "Starting"
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    failure: str | None = None
    artifacts: str | None = None
    transitions: list[tuple[str, datetime]] = field(default_factory=list)

    def enter_status(self, second: str) -> None:
        """Come to a secondary status."""
        self.second, self.modified = second, now()
        self.transitions.append((second, self.modified))


@dataclass
class Model:
    """A custom model, which a customization job made, or an imported one, which is in `folder`."""

    arn: str
    name: str
    base_model_arn: str
    job_arn: str | None = None
    folder: str | None = None
    architecture: str | None = None
    created: datetime = field(default_factory=now)


@dataclass
class ModelDeployment:
    """An on-demand deployment, or (with `units`) provisioned throughput."""

    arn: str
    name: str
    model_arn: str
    created: datetime = field(default_factory=now)
    modified: datetime | None = None
    """When it was changed; None while it is as it was made."""
    description: str | None = None
    units: int = 0
    commitment: str | None = None


Resource = TypeVar("Resource", Job, Task, Model, ModelDeployment)


@dataclass
class ClientToken:
    """What a client token was used for."""

    request: dict[str, Any]
    arn: str


@dataclass
class StateData:
    """All of it, for one Region, by ARN."""

    version: int = VERSION
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    imported: dict[str, Model] = field(default_factory=dict)
    deployments: dict[str, ModelDeployment] = field(default_factory=dict)
    throughputs: dict[str, ModelDeployment] = field(default_factory=dict)
    imports: dict[str, Task] = field(default_factory=dict)
    copies: dict[str, Task] = field(default_factory=dict)
    batches: dict[str, Task] = field(default_factory=dict)
    training: dict[str, TrainingJob] = field(default_factory=dict)
    """Of SageMaker, by name."""
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, ClientToken] = field(default_factory=dict)
    stacks: dict[str, StackRecord] = field(default_factory=dict)
    change_sets: dict[str, ChangeSetRecord] = field(default_factory=dict)


class State(StateData):
    """The contents, their lock and their file. Without a folder they end with the process."""

    def __init__(self, region: str, folder: Path | None = None) -> None:
        super().__init__()
        self.region = region
        self.lock = threading.RLock()
        self.file = folder / STATE_FILE if folder else None
        if self.file and self.file.exists():
            with as_store_error("the endpoint's state can't be read", self.file):
                kept = read_state(self.file, StateData)
            vars(self).update(vars(kept))

    def save(self) -> None:
        """Write the file. Raises StoreError."""
        if self.file is None:
            return
        with self.lock, as_store_error("the endpoint's state can't be written", self.file):
            names = StateData.__dataclass_fields__
            kept = StateData(**{name: getattr(self, name) for name in names})
            atomic_write(self.file, msgspec.json.encode(kept))

    def arn(self, kind: str, *rest: str) -> str:
        """A new ARN of that kind."""
        tail = "/".join((kind, *rest, new_id()))
        return f"arn:aws:bedrock:{self.region}:{ACCOUNT}:{tail}"

    def running_jobs(self) -> list[Job]:
        """The customization jobs that have not ended."""
        return [job for job in self.jobs.values() if job.status in RUNNING]

    def tag(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Put tags on something."""
        self.tags.setdefault(arn, {}).update({tag["key"]: tag["value"] for tag in tags})

    def create(
        self,
        kind: str,
        collection: dict[str, Resource],
        request: Mapping[str, Any],
        make: Callable[[], Resource],
        tags_member: str = "tags",
    ) -> tuple[str, Resource | None]:
        """The ARN of what `make` gives, and the thing, now among `things`.

        With a token that was used before it is the ARN of then, and None. `tags` is the member of
        `given` that has the tags. Raises ConflictException for a name that is in use.
        """
        with self.lock:
            known = self._find_created_by_token(kind, request)
            if known is not None:
                return known, None
            thing = make()
            if find_by_arn_or_name(collection, thing.name):
                raise ServiceError("ConflictException", f"The name {thing.name} is already in use")
            collection[thing.arn] = thing
            self.tag(thing.arn, request.get(tags_member, ()))
            token = request.get("clientRequestToken")
            if token:
                self.tokens[f"{kind}:{token}"] = ClientToken(dict(request), thing.arn)
            self.save()
            return thing.arn, thing

    def _find_created_by_token(self, kind: str, given: Mapping[str, Any]) -> str | None:
        """What a token made before. Raises ValidationException for other parameters."""
        token = given.get("clientRequestToken")
        known = self.tokens.get(f"{kind}:{token}") if token else None
        if known is None:
            return None
        if known.request != dict(given):
            raise ServiceError("ValidationException", "The token was used with other parameters")
        return known.arn

    def is_taggable(self, arn: str) -> bool:
        """True of the ARN of something that is there."""
        things = (self.jobs, self.models, self.imported, self.deployments, self.throughputs)
        tasks = (self.imports, self.copies, self.batches)
        return any(arn in group for group in (*things, *tasks))


def require_unused_job_name(jobs: Mapping[str, Any], name: str) -> None:
    """Raise ValidationException, as Bedrock does, for a job name that is in use.

    Source of the code and the words: Airflow's Bedrock operator, and a run of CreateModelImportJob
    in aws/sagemaker-python-sdk's pull request 6076. The service model lists a ConflictException.
    """
    if find_by_arn_or_name(jobs, name):
        raise ServiceError("ValidationException", JOB_NAME_IN_USE)


def find_by_arn_or_name(things: Mapping[str, Any], identifier: str) -> Any:
    """The thing of that ARN or name; None when there is none."""
    if identifier in things:
        return things[identifier]
    return next((thing for thing in things.values() if thing.name == identifier), None)


def require_resource(things: Mapping[str, Any], identifier: str, what: str) -> Any:
    """As `found`. Raises ResourceNotFoundException."""
    thing = find_by_arn_or_name(things, identifier)
    if thing is None:
        raise ServiceError("ResourceNotFoundException", f"Could not find the {what} {identifier}")
    return thing
