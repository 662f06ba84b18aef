"""Value types shared between packages: frozen, without behavior beyond their shape.

Python names are snake_case; `to_json` gives the camelCase names of the JSON contract, which are
Bedrock's own where Bedrock has one.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, get_args

Status = Literal["InProgress", "Completed", "Failed", "Stopping", "Stopped"]
"""`ModelCustomizationJobStatus` of the Bedrock API, unchanged."""
DetailStatus = Literal["NotStarted", "InProgress", "Completed", "Failed", "Stopping", "Stopped"]
"""`JobStatusDetails` of the Bedrock API, unchanged."""
Severity = Literal["error", "warning", "note"]
Split = Literal["train", "validation"]
ItemT = TypeVar("ItemT", covariant=True)

VALIDATION = "validation"
"""Role of the validation data, where it is one set."""
VALIDATION_ROLE_PREFIX = f"{VALIDATION}-"
"""Begins the role of a named validation set: `validation-german`."""
NAME_MAX = 63
"""The longest `jobName` of Bedrock (botocore 1.44.5)."""
_JOB_ID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+.\-]{0,53}-[0-9a-f]{8}")
STATUSES: tuple[str, ...] = get_args(Status)
DETAIL_STATUSES: tuple[str, ...] = get_args(DetailStatus)
TERMINAL_STATUSES: frozenset[str] = frozenset({"Completed", "Failed", "Stopped"})


def validation_role(name: str) -> str:
    """Return the role of a named validation set: `german` has the role `validation-german`."""
    return VALIDATION_ROLE_PREFIX + name


def is_validation_role(role: str) -> bool:
    """Return whether a role is that of validation data, the only set or one of several."""
    return role == VALIDATION or role.startswith(VALIDATION_ROLE_PREFIX)


def validation_set_of(role: str) -> str | None:
    """Return the name of the validation set that has this role; None for any other role."""
    return (
        role.removeprefix(VALIDATION_ROLE_PREFIX)
        if role.startswith(VALIDATION_ROLE_PREFIX)
        else None
    )


def role_field(role: str) -> str:
    """Return the field of the job file that names a role's files: `data.validation.german`."""
    name = validation_set_of(role)
    return f"data.{role}" if name is None else f"data.{VALIDATION}.{name}"


def to_camel_case(name: str) -> str:
    """Convert a name: `learning_rate` becomes `learningRate`."""
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


OMITTED_IF_NONE = "omittedIfNone"
"""Metadata of a field that JSON has only with a value: most values of its class have none."""


def _extra() -> Any:
    """Return a field that is None, and then not in JSON, unless it is set."""
    return dataclasses.field(default=None, metadata={OMITTED_IF_NONE: True})


def to_json(value: Any) -> Any:
    """Return a value of this module as plain JSON data: camelCase keys, paths as text."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            to_camel_case(f.name): to_json(getattr(value, f.name))
            for f in dataclasses.fields(value)
            if not f.metadata.get(OMITTED_IF_NONE) or getattr(value, f.name) is not None
        }
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_json(item) for item in value]
    return str(value) if isinstance(value, Path) else value


COULD_NOT_REACH = "CouldNotReach"
"""Code of a finding about a part that could not be reached, and may have faults of its own."""


@dataclass(frozen=True)
class Finding:
    """One fault, warning or note of a check.

    `line` counts from 1; `code` is stable and greppable.
    """

    severity: Severity
    code: str
    message: str
    fix: str | None = None
    file: str | None = None
    line: int | None = None
    field: str | None = None


@dataclass(frozen=True)
class UnavailablePart:
    """A part of a listing that could not be read, which is not the same as an empty one.

    `what` names the part. `code`, `reason`, `exit_code` and `fix` are those of the error: exit code
    4 where the cloud refused, 5 where it could not be reached.
    """

    what: str
    code: str
    reason: str
    exit_code: int
    fix: str | None = None


@dataclass(frozen=True)
class Listing(Generic[ItemT]):
    """The items of a listing, and the parts of it that could not be read.

    With anything `unavailable`, there may be more items, and every sum over them is a lower bound.
    """

    items: tuple[ItemT, ...] = ()
    unavailable: tuple[UnavailablePart, ...] = ()

    @property
    def exit_code(self) -> int:
        """Return 0 for a complete listing, 4 when a part was refused, 5 when a retry may help."""
        return min((part.exit_code for part in self.unavailable), default=0)


@dataclass(frozen=True)
class CallerIdentity:
    """The identity that calls AWS, and the origin of account, identity and Region.

    `account` and `arn` are None when AWS did not return them; then `unavailable` has the reason.
    `unused` names credentials that are configured but deliberately not used.
    """

    account: str | None
    arn: str | None
    credentials_from: str | None
    profile: str | None
    profile_from: str
    region: str | None
    region_from: str
    endpoint_url: str | None = None
    unused: tuple[str, ...] = ()
    unavailable: UnavailablePart | None = None


@dataclass(frozen=True)
class DataVolume:
    """An amount of data. `tokens` is an estimate from `characters` (`Manifest.token_rule`)."""

    records: int
    characters: int
    tokens: int


@dataclass(frozen=True)
class StagedFile(DataVolume):
    """One staged file."""

    name: str
    sha256: str
    bytes: int


@dataclass(frozen=True)
class ManifestSource:
    """One file that staging read, and what it was read as.

    `shape` is the format of its records, `read_as` that format in words, `evidence` what in the
    records shows it. `matched` of the `records` have that format. `left_out` are keys and columns
    that no record of the staged data has: they say nothing, or `data.columns` leaves them out.
    """

    role: str
    path: str
    sha256: str
    bytes: int
    records: int
    shape: str
    read_as: str = ""
    evidence: str = ""
    matched: int = 0
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Manifest:
    """The staged files, and the sources that they were made from.

    `sha256` covers the staged bytes and nothing else. `files` maps a role (`train`, `validation`,
    `test`) to its canonical JSONL file. Several validation sets have a role each
    (`validation-NAME`).
    """

    sha256: str
    customization_type: str
    format: str
    seed: int
    files: Mapping[str, StagedFile]
    sources: tuple[ManifestSource, ...]
    token_rule: str
    version: int = 1


@dataclass(frozen=True)
class PeakMemory:
    """The peak memory of a run in bytes, and how many bytes are free on its device.

    `remedy` names settings that would fit, where these do not.
    """

    bytes: int
    available: int | None
    fits: bool
    remedy: str | None


@dataclass(frozen=True)
class MissingPrice:
    """What has no known price, the field of `prices:` that states one, and where it is listed.

    `model` is the model whose price it is where that is not the job's base model: the job file
    states no price of another model, `prices.yaml` does.
    """

    what: str
    field: str
    listed_at: str
    model: str | None = None


@dataclass(frozen=True)
class UnknownAmount:
    """What is not known before a run, and the field of the job file that gives its bound."""

    what: str
    field: str
    example: str


@dataclass(frozen=True)
class UnitPrice:
    """A price in USD with its source. `is_old` is True for a source of more than a year ago.

    `region` is the Region of the price, None where it holds for every Region. `certainty` says how
    sure the price is (catalogue/prices.py).
    """

    usd: float
    source: str
    date: str
    certainty: str
    region: str | None = None
    is_old: bool = False


@dataclass(frozen=True)
class BilledPart:
    """A quantity that is billed: how much, at which price, and what it amounts to.

    `price` is None where none is known, `quantity` where it is not known before the run. `usd` is
    None in both cases. `not_used` is the catalogue's price where AWS's Price List has another one
    now. `model` and `price_name` say whose price it is; `price_name` ends in `.input` or `.output`
    for one of a pair.
    """

    what: str
    quantity: float | None
    unit: str
    usd: float | None
    price: UnitPrice | None = None
    not_used: UnitPrice | None = None
    model: str = ""
    price_name: str = ""


@dataclass(frozen=True)
class Estimate:
    """The estimated cost and time of a run.

    `usd` has `training`, `storagePerMonth` and `servingPerHour`. An amount is None where no price
    is known; `steps`, `seconds` and `memory` are None where they were not measured. With `at_most`,
    the training amount is an upper bound. `unpriced` says what has no price where the training
    amount is None, `unknown` what has no bound. With `tokens_counted`, the tokens were counted by
    the trained model's tokenizer; otherwise they are estimated from characters. The training amount
    is the sum of `parts`; `price_source`, `price_date` and `price_certainty` are those of the first
    one. `notes` say what the amount has in it and what it lacks.
    """

    backend: str
    train_tokens: int
    epochs: int
    usd: Mapping[str, float | None]
    seconds: float | None
    price_source: str
    price_date: str
    steps: int | None = None
    memory: PeakMemory | None = None
    at_most: bool = False
    unpriced: MissingPrice | None = None
    tokens_counted: bool = False
    unknown: UnknownAmount | None = None
    price_certainty: str = ""
    price_is_old: bool = False
    parts: tuple[BilledPart, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class WeightsLeftOut:
    """Weights of one kind that no adapter is on. `share` is of the model's counted weights."""

    name: str
    reason: str
    share: float


@dataclass(frozen=True)
class AdapterReach:
    """What a job's adapters reach: how many layers, and which share of the model's weights.

    Counted are weights of two or more dimensions, without embeddings and output layer. `not_merged`
    are adapted layers whose updates can't be merged. `text` is all of it in one line.
    """

    layers: int
    share: float
    left_out: tuple[WeightsLeftOut, ...]
    not_merged: tuple[str, ...]
    text: str


@dataclass(frozen=True)
class Plan:
    """The exact request, as a value that prints. Submitting only sends it.

    `token` names the request: two plans with one token are one job. `request` is the whole request
    that the backend gets; `files` maps a role to the staged file that is sent with it; `spec` is
    the content of the job file, with absolute paths.
    """

    backend: str
    token: str
    name: str
    request: Mapping[str, Any]
    files: Mapping[str, Path]
    manifest: Manifest
    estimate: Estimate
    spec: Mapping[str, Any] = field(default_factory=dict)

    @property
    def job_id(self) -> str:
        """Return the job's id: its truncated name, and the beginning of the token."""
        return job_id(self.name, self.token)


def job_id(name: str, token: str) -> str:
    """Build the id of a job: at most 63 characters, as Bedrock's `jobName` has."""
    return f"{name[: NAME_MAX - 9]}-{token[:8]}"


def is_job_id(text: str) -> bool:
    """Return whether `job_id` can build this text from a legal name: one word, never a path."""
    return _JOB_ID.fullmatch(text) is not None


@dataclass(frozen=True)
class StatusDetails:
    """The three phases of a job, in Bedrock's order."""

    validation_details: DetailStatus = "NotStarted"
    data_processing_details: DetailStatus = "NotStarted"
    training_details: DetailStatus = "NotStarted"


@dataclass(frozen=True)
class TrainingProgress:
    """The position of a running job. `seconds_left` is None until it can be estimated.

    `reward` is the last step's mean, of a job that learns from rewards.
    """

    step: int
    total_steps: int
    epoch: int
    loss: float | None
    tokens_per_second: float | None
    seconds_left: float | None
    activity: str
    reward: float | None = _extra()


TRAINING_BEGAN = "trainingBegan"
"""Key of a JobState's `summary`: when the phase began that is billed by time."""
MODEL_REMOVED = "modelRemoved"
"""Key of a JobState's `summary`: the job's model was removed; submitting again recreates it."""


@dataclass(frozen=True)
class JobState:
    """The state of a job at one time. Times are ISO 8601 in UTC.

    `artifacts` is the folder of the job's artifacts; it is set once they are complete on this
    machine.
    """

    id: str
    status: Status
    status_details: StatusDetails
    created_at: str
    ended_at: str | None = None
    failure_message: str | None = None
    artifacts: str | None = None
    progress: TrainingProgress | None = None
    summary: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_ended(self) -> bool:
        """Return whether the job has reached a terminal status."""
        return self.status in TERMINAL_STATUSES


@dataclass(frozen=True)
class Metric:
    """One point of a loss curve. `step` counts optimizer steps from 0, `epoch` from 0.

    `validation_set` names one of several validation sets. A point of the split `validation` without
    it is of all validation data. Four are of pairs of answers: mean rewards, and how often the
    chosen answer has the higher one.

    A job that learns from rewards has more: the mean `reward` of the step's answers (of a
    validation: of one greedy answer to each prompt, and the loss is minus that), their mean length
    in tokens and entropy in nats, the share of prompts whose answers all got the same reward
    (`dead_groups`), the share of clipped tokens, and the divergence from the base (`kl`).
    """

    step: int
    epoch: int
    split: Split
    loss: float
    perplexity: float
    learning_rate: float | None
    tokens_per_second: float | None
    timestamp: str
    validation_set: str | None = None
    chosen_reward: float | None = _extra()
    rejected_reward: float | None = _extra()
    reward_margin: float | None = _extra()
    preference_accuracy: float | None = _extra()
    reward: float | None = _extra()
    kl: float | None = _extra()
    response_length: float | None = _extra()
    entropy: float | None = _extra()
    dead_groups: float | None = _extra()
    clip_fraction: float | None = _extra()


@dataclass(frozen=True)
class LogLine:
    """One line of a job's log. `logs(after=cursor)` continues behind it."""

    cursor: str
    text: str
