"""The endpoint's state: jobs, models, deployments, tags, stacks. Behind one lock, in one file.

The file is replaced in one step after each change, before the caller gets its response: what was
acknowledged survives a kill. msgspec encodes the dataclasses; their field names are the file's.
"""

from __future__ import annotations

import secrets
import string
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from cloudft.endpoint.cloudformation.records import ChangeSetRecord, StackRecord
from cloudft.endpoint.openai_api.records import FineTuningJob, UploadedFile
from cloudft.endpoint.protocols.messages import Parameters, ServiceError
from cloudft.endpoint.state_file import VERSION, read_state
from cloudft.storage.atomic_files import as_store_error, atomic_write

ACCOUNT = "000000000000"
"""No AWS account has this number: it shows that this is not AWS."""
STATE_FILE = "endpoint.json"
JOB_NAME_IN_USE = "The provided job name is currently in use."
MAX_TAGS = 50
"""Tags that a resource may have, old and new ones together. Source: Bedrock API reference,
"TagResource", TooManyTagsException; the service model allows 200 in a request."""
RUNNING = frozenset({"InProgress", "Stopping"})
ID_CHARACTERS = string.ascii_lowercase + string.digits


def now() -> datetime:
    """Return the time, in UTC."""
    return datetime.now(timezone.utc)


def new_id() -> str:
    """Return the last part of a new ARN: 12 characters, as Bedrock's are."""
    return "".join(secrets.choice(ID_CHARACTERS) for _ in range(12))


@dataclass
class Phase:
    """One phase of `statusDetails`: its status, when it began, and when the status last changed."""

    status: str
    created: datetime
    modified: datetime


@dataclass
class Job:
    """A model customization job: its request, and its progress."""

    arn: str
    request: Parameters
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
    """The id of the local backend's job that trains it."""
    note: str | None = None
    """What the API has no member for: that a completed job learned nothing."""

    def update_phases(self, details: Mapping[str, str]) -> bool:
        """Record the status of each phase, and the time of a change; return whether one changed."""
        changed = False
        for phase, status in details.items():
            known = self.details.get(phase)
            # A phase has no entry until it has begun.
            if status != "NotStarted" and (known is None or known.status != status):
                self.modified = now()
                began = known.created if known else self.modified
                self.details[phase] = Phase(status, began, self.modified)
                changed = True
        return changed

    @property
    def name(self) -> str:
        """Return the job's name."""
        return str(self.request["jobName"])

    @property
    def id(self) -> str:
        """Return the last part of its ARN."""
        return self.arn.rpartition("/")[2]


@dataclass
class Task:
    """A job of another kind: a model import or copy, a batch inference, or an evaluation."""

    arn: str
    name: str
    request: Parameters
    status: str = "InProgress"
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    ended: datetime | None = None
    failure: str | None = None
    model_arn: str | None = None
    counts: dict[str, int] = field(default_factory=dict)

    def finish(self, status: str, failure: str | None = None) -> None:
        """Set the final status and the time."""
        self.status, self.failure = status, failure
        self.ended = self.modified = now()

    @property
    def id(self) -> str:
        """Return the last part of its ARN."""
        return self.arn.rpartition("/")[2]


@dataclass
class TrainingJob:
    """A training job of SageMaker: its request, and its progress.

    `second` is the secondary status; `transitions` has each one with the time when it began.
    """

    arn: str
    name: str
    request: Parameters
    status: str = "InProgress"
    second: str = "Starting"
    created: datetime = field(default_factory=now)
    modified: datetime = field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    failure: str | None = None
    artifacts: str | None = None
    package: str | None = None
    """The ARN of the model package that a serverless job made."""
    transitions: list[tuple[str, datetime]] = field(default_factory=list)

    def enter_status(self, second: str) -> None:
        """Set the secondary status, and record the time."""
        self.second, self.modified = second, now()
        self.transitions.append((second, self.modified))


@dataclass
class ModelPackageGroup:
    """A model package group of SageMaker."""

    arn: str
    name: str
    created: datetime = field(default_factory=now)


@dataclass
class ModelPackage:
    """A version in a model package group: the model in S3 that a serverless job made."""

    arn: str
    group: str
    version: int
    s3_uri: str
    created: datetime = field(default_factory=now)


@dataclass
class Model:
    """A custom model, made by a customization job, or a model that is stored in `folder`.

    The latter is an imported model, or a custom model that CreateCustomModel made.
    """

    arn: str
    name: str
    base_model_arn: str
    job_arn: str | None = None
    folder: str | None = None
    architecture: str | None = None
    created: datetime = field(default_factory=now)
    status: str = "Active"
    failure: str | None = None
    source: dict[str, str] | None = None
    """What CreateCustomModel reads: `s3Uri`, as the role `roleArn`."""


@dataclass
class ModelDeployment:
    """An on-demand deployment, or provisioned throughput (which has `units`)."""

    arn: str
    name: str
    model_arn: str
    created: datetime = field(default_factory=now)
    modified: datetime | None = None
    """The time of the last change; None if it was never changed."""
    description: str | None = None
    units: int = 0
    commitment: str | None = None
    desired_model_arn: str | None = None
    """The model of the last update; None if its model was never updated."""
    update_ends: datetime | None = None
    """When the last update takes effect: `model_arn` is served until then."""
    update_failure: str | None = None
    """Why the last update fails: `model_arn` is served after it, too."""

    @property
    def is_updating(self) -> bool:
        """Return whether an update of its model is under way."""
        return self.update_ends is not None and now() < self.update_ends

    @property
    def served_model_arn(self) -> str:
        """Return the ARN of the model that answers now: during an update, the one before it."""
        if self.desired_model_arn is None or self.is_updating or self.update_failure:
            return self.model_arn
        return self.desired_model_arn

    @property
    def used_model_arns(self) -> set[str]:
        """Return the ARNs of the models that must not be deleted."""
        desired = self.desired_model_arn if self.is_updating else None
        return {self.served_model_arn, *([desired] if desired else [])}


@dataclass
class InferenceProfile:
    """An inference profile. `area` is where it sends requests: `us`, `global`; "" for one Region.

    `model_arn` is the model's ARN in this Region.
    """

    arn: str
    name: str
    model_arn: str
    area: str = ""
    description: str | None = None
    created: datetime = field(default_factory=now)

    @property
    def id(self) -> str:
        """Return the last part of its ARN."""
        return self.arn.rpartition("/")[2]

    @property
    def is_system(self) -> bool:
        """Return whether Bedrock defines it."""
        return ":inference-profile/" in self.arn


class NamedResource(Protocol):
    """A resource that has an ARN and a name."""

    @property
    def arn(self) -> str:
        """Return its ARN."""

    @property
    def name(self) -> str:
        """Return its name."""


Resource = TypeVar("Resource", Job, Task, Model, ModelDeployment, InferenceProfile)
Named = TypeVar("Named", bound=NamedResource)


@dataclass
class ClientToken:
    """A client request token: the request that it came with, and the ARN that was created."""

    request: Parameters
    arn: str


@dataclass
class StateData:
    """The state of one Region. Resources are by ARN, unless said otherwise."""

    version: int = VERSION
    jobs: dict[str, Job] = field(default_factory=dict)
    models: dict[str, Model] = field(default_factory=dict)
    imported: dict[str, Model] = field(default_factory=dict)
    deployments: dict[str, ModelDeployment] = field(default_factory=dict)
    throughputs: dict[str, ModelDeployment] = field(default_factory=dict)
    imports: dict[str, Task] = field(default_factory=dict)
    copies: dict[str, Task] = field(default_factory=dict)
    batches: dict[str, Task] = field(default_factory=dict)
    evaluations: dict[str, Task] = field(default_factory=dict)
    training: dict[str, TrainingJob] = field(default_factory=dict)
    """SageMaker's training jobs, by name."""
    model_package_groups: dict[str, ModelPackageGroup] = field(default_factory=dict)
    """By name."""
    model_packages: dict[str, ModelPackage] = field(default_factory=dict)
    profiles: dict[str, InferenceProfile] = field(default_factory=dict)
    """The account's own inference profiles."""
    logging: dict[str, Any] | None = None
    """The configuration of invocation logging."""
    tags: dict[str, dict[str, str]] = field(default_factory=dict)
    tokens: dict[str, ClientToken] = field(default_factory=dict)
    """By `KIND:TOKEN`."""
    quotas: dict[str, float] = field(default_factory=dict)
    """The values of raised quotas, by code."""
    openai_files: dict[str, UploadedFile] = field(default_factory=dict)
    """By id, as the next."""
    fine_tuning_jobs: dict[str, FineTuningJob] = field(default_factory=dict)
    stacks: dict[str, StackRecord] = field(default_factory=dict)
    change_sets: dict[str, ChangeSetRecord] = field(default_factory=dict)


class State(StateData):
    """The state, its lock and its file. Without a folder, the state ends with the process.

    Raises StoreError and BadDocument for a file that can't be read.
    """

    def __init__(self, region: str, folder: Path | None = None) -> None:
        super().__init__()
        self.region = region
        self.regions: dict[str, State] = {region: self}
        """The states of all Regions of the endpoint, which `join` shares."""
        # Reentrant: `create` holds it while `save` takes it again.
        self.lock = threading.RLock()
        self.file = folder / STATE_FILE if folder else None
        if self.file and self.file.exists():
            with as_store_error("the endpoint's state can't be read", self.file):
                data = read_state(self.file, StateData)
            vars(self).update(vars(data))

    def join(self, other: State) -> None:
        """Become a Region of the same endpoint as `other`."""
        other.regions[self.region] = self
        self.regions = other.regions

    def find_model(self, arn: str) -> Model | None:
        """Return a custom model by its ARN, of any Region of the endpoint; None if it is gone."""
        region = self.regions.get(region_of(arn))
        return region.models.get(arn) if region else None

    def job_of(self, model: Model) -> Job:
        """Return the job that trained a model, in whatever Region. Raises ServiceError."""
        arn = str(model.job_arn)
        region = self.regions.get(region_of(arn))
        if region is None or arn not in region.jobs:
            what = f"Could not find the job {arn}: its Region is no Region of this endpoint"
            raise ServiceError("ResourceNotFoundException", what)
        return region.jobs[arn]

    def save(self) -> None:
        """Write the file. Raises StoreError."""
        if self.file is None:
            return
        # Encoded under the lock: no other thread changes a resource halfway through.
        with self.lock, as_store_error("the endpoint's state can't be written", self.file):
            names = StateData.__dataclass_fields__
            data = StateData(**{name: getattr(self, name) for name in names})
            atomic_write(self.file, msgspec.json.encode(data))

    def arn(self, kind: str, *rest: str) -> str:
        """Return a new ARN of a resource of that kind."""
        tail = "/".join((kind, *rest, new_id()))
        return f"arn:aws:bedrock:{self.region}:{ACCOUNT}:{tail}"

    def running_jobs(self) -> list[Job]:
        """Return the customization jobs that have not ended."""
        return [job for job in self.jobs.values() if job.status in RUNNING]

    def tag(self, arn: str, tags: Iterable[Mapping[str, str]]) -> None:
        """Add tags to a resource; a tag with the same key is replaced.

        Raises ServiceError (TooManyTagsException).
        """
        added = {tag["key"]: tag["value"] for tag in tags}
        self.tags[arn] = require_few_tags({**self.tags.get(arn, {}), **added}, arn)

    def create(
        self,
        kind: str,
        collection: dict[str, Resource],
        request: Parameters,
        make: Callable[[], Resource],
        tags_member: str = "tags",
    ) -> tuple[str, Resource | None]:
        """Create a resource at most once per client request token; return its ARN and itself.

        `make` returns the resource, which is added to `collection` and saved. If an earlier request
        with the same token created one, return that one's ARN, and None. `tags_member` is the
        member of the request that has the tags. Raises ServiceError: ConflictException for a name
        that is in use, ValidationException for a token that was used with other parameters,
        TooManyTagsException; and StoreError.
        """
        # One lock around check and creation: of two requests with one token, one creates.
        with self.lock:
            existing = self._find_created_by_token(kind, request)
            if existing is not None:
                return existing, None
            # Those of a model that the job will make, too: at its end nobody could be told.
            for name in [member for member in request if member.lower().endswith("tags")]:
                require_few_tags({tag["key"]: tag["value"] for tag in request[name]}, name)
            resource = make()
            if find_by_arn_or_name(collection, resource.name):
                message = f"The name {resource.name} is already in use"
                raise ServiceError("ConflictException", message)
            collection[resource.arn] = resource
            self.tag(resource.arn, request.get(tags_member, ()))
            token = request.get("clientRequestToken")
            if token:
                # The whole request, because a retry must have the same parameters.
                self.tokens[f"{kind}:{token}"] = ClientToken(dict(request), resource.arn)
            # Token and resource reach the disk together, before the caller learns the ARN: after a
            # kill the caller's retry finds both or neither.
            self.save()
            return resource.arn, resource

    def _find_created_by_token(self, kind: str, request: Parameters) -> str | None:
        """Return the ARN that the request's token created earlier; None if it did not.

        Raises ServiceError (ValidationException) for other parameters than then.
        """
        token = request.get("clientRequestToken")
        used = self.tokens.get(f"{kind}:{token}") if token else None
        if used is None:
            return None
        if used.request != dict(request):
            raise ServiceError("ValidationException", "The token was used with other parameters")
        return used.arn

    def is_taggable(self, arn: str) -> bool:
        """Return whether that is the ARN of an existing resource of Bedrock."""
        resources = (self.jobs, self.models, self.imported, self.deployments, self.throughputs)
        tasks = (self.imports, self.copies, self.batches, self.evaluations, self.profiles)
        return any(arn in collection for collection in (*resources, *tasks))


def region_of(arn: str) -> str:
    """Return the Region in an ARN; empty for text that is none."""
    return (arn.split(":") + [""] * 4)[3]


def require_few_tags(tags: dict[str, str], resource: str) -> dict[str, str]:
    """Return the tags of a resource. Raises ServiceError (TooManyTagsException) for too many."""
    if len(tags) > MAX_TAGS:
        what = "The request contains more tags than can be associated with a resource"
        message = f"{what} ({MAX_TAGS} tags per resource): {resource} would have {len(tags)}"
        raise ServiceError("TooManyTagsException", message)
    return tags


def require_unused_job_name(jobs: Mapping[str, NamedResource], name: str) -> None:
    """Raise ServiceError (ValidationException), as Bedrock does, for a job name that is in use.

    Source of the code and the message: Airflow's Bedrock operator, and a run of
    CreateModelImportJob in aws/sagemaker-python-sdk's pull request 6076. The service model lists a
    ConflictException instead.
    """
    if find_by_arn_or_name(jobs, name):
        raise ServiceError("ValidationException", JOB_NAME_IN_USE)


def find_by_arn_or_name(resources: Mapping[str, Named], identifier: str) -> Named | None:
    """Return the resource with that ARN or name; None if there is none."""
    if identifier in resources:
        return resources[identifier]
    return next((r for r in resources.values() if r.name == identifier), None)


def require_resource(resources: Mapping[str, Named], identifier: str, kind: str) -> Named:
    """Return the resource with that ARN or name. Raises ServiceError (ResourceNotFoundException).

    `kind` is how the error names it.
    """
    resource = find_by_arn_or_name(resources, identifier)
    if resource is None:
        message = f"Could not find the {kind} {identifier}"
        raise ServiceError("ResourceNotFoundException", message)
    return resource
