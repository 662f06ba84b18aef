"""Billable resources of a backend's account: what `ps`, `gc` and `deploy` list, make and remove."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypedDict

from cloudft.errors import UsageError

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

    `kind` is `deployment`, `provisioned-throughput`, `custom-model`, `imported-model` or `data`;
    on SageMaker `training-job`, `warm-pool` or `data`. `backend` names the backend that listed it.
    `usd` has `perHour` and `perMonth`, None where no price is known. `job` is set when cloudft
    created it; `model` is the ARN of the model that a deployment serves; `expires_at` is its time
    to live, ISO 8601. `basis` is the basis of the price: how it is billed, with source and date.
    `also` names further jobs that share it. When `job_known` is False its tags could not be read,
    and `job` has no meaning.
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


def not_owned_error(resource: CloudResource) -> UsageError:
    """Return the error for a resource that cloudft did not create, and never changes or removes."""
    return UsageError(
        f"{resource.kind} {resource.name} was not created by cloudft:"
        f" it has no tag cloudft:job ({resource.id})",
        fix="remove it with the tool that created it.",
    )


class ServingCall(TypedDict):
    """A call that deploys or shares a model, or renews its deployment, by boto3's names."""

    service: str
    operation: str
    parameters: dict[str, Any]


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
