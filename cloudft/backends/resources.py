"""Billable resources of a backend's account: what `ps`, `gc` and `deploy` list, make and remove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any, Literal, TypedDict

from cloudft.errors import JobStateConflict, UsageError

IN_USE = "in-use"
"""Status of staged data that a running job reads, also a job of another tool.

The `id` may be a prefix. Several backends may read the same bytes, and each knows only its own
jobs.
"""
IN_USE_PART_SUFFIX = "and their data"
"""Suffix of the names of those inventory parts that show which data is in use."""


@dataclass(frozen=True)
class CloudResource:
    """A billable resource in the backend's account.

    `kind` is `deployment`, `provisioned-throughput`, `custom-model`, `imported-model`,
    `evaluation-job` (one that runs), `uploaded-file`, `fine-tuned-model` or `data`; on SageMaker
    `training-job`, `warm-pool` or `data`.
    `backend` names the backend that listed it.
    `usd` has `perHour` and `perMonth`, None where no price is known. `job` is set when cloudft
    created it; `model` is the ARN of the model that a deployment serves; `expires_at` is its time
    to live, ISO 8601. `basis` is the basis of the price: how it is billed, with source and date.
    `also` names further jobs that share it. When `job_known` is False its tags could not be read,
    and `job` has no meaning.

    `previous_model` is the ARN of the model that a rollback puts back, `next_model` that of an
    update under way. `commitment` is the term of provisioned throughput, `OneMonth` or `SixMonths`,
    and `committed_until` its end, ISO 8601: it can't be removed before.
    """

    kind: str
    id: str
    name: str
    status: str
    created_at: str
    usd: Mapping[str, float | None]
    job: str | None = None
    model: str | None = None
    expires_at: str | None = None
    backend: str = "bedrock"
    basis: str = ""
    also: tuple[str, ...] = ()
    job_known: bool = True
    previous_model: str | None = None
    next_model: str | None = None
    commitment: str | None = None
    committed_until: str | None = None

    def is_committed(self, now: datetime | None = None) -> bool:
        """Return whether its commitment has not ended: it can't be removed yet."""
        if self.committed_until is None:
            return False
        return (now or datetime.now(timezone.utc)) < datetime.fromisoformat(self.committed_until)


def not_owned_error(resource: CloudResource, action: str = "remove") -> UsageError:
    """Return the error for a resource that cloudft did not create, and never changes or removes."""
    return UsageError(
        f"{resource.kind} {resource.name} was not created by cloudft:"
        f" it has no tag cloudft:job ({resource.id})",
        fix=f"{action} it with the tool that created it.",
    )


def committed_error(resource: CloudResource) -> JobStateConflict:
    """Return the error for provisioned throughput that can't be removed before its term ends."""
    until = resource.committed_until
    if until is not None:
        until = f"{datetime.fromisoformat(until).astimezone():%Y-%m-%d %H:%M:%S}"
    return JobStateConflict(
        f"{resource.kind} {resource.name} has a commitment ({resource.commitment}) until"
        f" {until}: AWS bills it, and refuses to remove it, until then",
        fix="remove it after that; `cloudft deploy JOB --update DEPLOYMENT` puts another model"
        " behind it.",
    )


class ServingCall(TypedDict):
    """A call that deploys, updates, renews or shares a model, by boto3's names."""

    service: str
    operation: str
    parameters: dict[str, Any]


@dataclass(frozen=True)
class Commitment:
    """A term that provisioned throughput is bought for. It is billed to its end, used or not.

    `usd` is the price of the whole term, None where no price is known. `ends_at` is the end if it
    is bought now, ISO 8601: AWS sets the exact time.
    """

    duration: str
    months: int
    usd: float | None
    ends_at: str


@dataclass(frozen=True)
class ModelShare:
    """A custom model that is shared with an account, or the call that would share it.

    `arn` and `status` are those of the share, None before it exists; then `call` is made.
    """

    model: str
    account: str
    name: str
    call: ServingCall
    arn: str | None = None
    status: str | None = None


@dataclass(frozen=True)
class ServingPlan:
    """How a job's model would be served: the exact call, and what it costs while it exists.

    `existing` is the resource that serves the model already. Then `call` is not made; `renewal`
    is, which sets the time to live that ends at `expires_at`. `renewal` is None where the time to
    live stays as it is.
    """

    kind: str
    name: str
    call: ServingCall
    usd: Mapping[str, float | None]
    expires_at: str | None = None
    existing: CloudResource | None = None
    renewal: ServingCall | None = None
    commitment: Commitment | None = None


@dataclass(frozen=True)
class ServingUpdatePlan:
    """How another model is put behind a deployment: the calls, in order.

    `resource` is the deployment as it is. `calls` is empty where it serves the model already. A
    `rollback` puts back the model that it served before its last update.
    """

    kind: Literal["update", "rollback"]
    resource: CloudResource
    from_model: str
    from_job: str
    to_model: str
    to_job: str
    calls: tuple[ServingCall, ...]
