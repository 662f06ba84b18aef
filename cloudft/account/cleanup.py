"""List the billable resources of an account, and remove those that cloudft created.

Only resources with cloudft's tag, which names their job, are ever removed. Of these, only expired
and orphaned ones of jobs that this home has submitted are removed by default; the others need a
name or a flag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from typing import Literal

from cloudft.backends import TRAINING_BACKENDS, backend_class, make_backend
from cloudft.backends.base import Location
from cloudft.backends.capabilities import SupportsInventory
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import (
    IN_USE,
    IN_USE_PART_SUFFIX,
    CloudResource,
    committed_error,
    not_owned_error,
)
from cloudft.errors import (
    CloudftError,
    CloudRefused,
    CloudUnreachable,
    JobStateConflict,
    UsageError,
)
from cloudft.storage.home import Home
from cloudft.storage.ledger import SubmittedJobs
from cloudft.storage.store import Store
from cloudft.types import Listing, UnavailablePart

KeptReason = Literal["live", "another-home", "use-unknown", "committed"]
RESUMABLE = "resumable"
"""The status of data of a job that can be resumed, and then reads it again."""
RUNNING_KINDS = {"evaluation-job", "training-job"}
"""Kinds that are running: they are listed with their cost, and are never garbage."""
UNREMOVABLE_KINDS = {"fine-tuned-model"}
"""Kinds that are listed with their cost, and that no documented call removes."""
MODEL_KINDS = {"custom-model", "imported-model"}


def backends_with_account() -> list[str]:
    """Return the names of the backends that have an account with billable resources."""
    return [
        name for name in TRAINING_BACKENDS if issubclass(backend_class(name), SupportsInventory)
    ]


def _inventory_backend(backend_name: str, home: Home, location: Location) -> SupportsInventory:
    backend = make_backend(backend_name, home).bind(location)
    if not isinstance(backend, SupportsInventory):
        raise _no_account_error(backend_name)
    return backend


def _no_account_error(backend_name: str) -> UsageError:
    fix = f"use {' or '.join(backends_with_account())}."
    return UsageError(f"the backend {backend_name} has no account", fix=fix)


def list_account(
    backend_name: str | None, home: Home, location: Location
) -> Listing[CloudResource]:
    """Return all resources of the account, in an order in which they may be removed.

    Without a name, of every backend that has an account. What can't be read is `unavailable`. Data
    that a running job of any backend reads is left out.
    """
    builder = ListingBuilder()
    names = backends_with_account() if backend_name is None else [backend_name]
    resources = [
        resource
        for name in names
        for resource in builder.merge(_inventory_backend(name, home, location).list_resources())
    ]
    return builder.build(_merge_shared_data(resources))


def _merge_shared_data(resources: Sequence[CloudResource]) -> list[CloudResource]:
    """Leave out data in use, and merge data that several backends list into one resource."""
    used = [resource.id for resource in resources if resource.status == IN_USE]
    merged: dict[tuple[str, str], CloudResource] = {}
    for resource in resources:
        key = (resource.kind, resource.id)
        is_data = resource.kind == "data"
        if is_data and any(resource.id.startswith(u) or u.startswith(resource.id) for u in used):
            continue
        if is_data and key in merged:
            first = merged[key]
            jobs = [job for job in (*first.also, resource.job, *resource.also) if job != first.job]
            status = max(first.status, resource.status, key=lambda status: status == RESUMABLE)
            also = tuple(dict.fromkeys(str(job) for job in jobs))
            resource = replace(first, also=also, status=status)
        merged[key] = resource
    return list(merged.values())


def is_expired(resource: CloudResource, now: datetime | None = None) -> bool:
    """Return whether the time to live is over; a tag that is not a time never expires."""
    try:
        end = datetime.fromisoformat(resource.expires_at or "")
    except ValueError:
        return False
    end = end if end.tzinfo else end.replace(tzinfo=timezone.utc)
    return end <= (now or datetime.now(timezone.utc))


def total_usd(resources: Sequence[CloudResource]) -> dict[str, float]:
    """Return the cost of all of them, as far as prices are known."""
    return {unit: sum(t.usd[unit] or 0.0 for t in resources) for unit in ("perHour", "perMonth")}


@dataclass(frozen=True)
class GarbageCriteria:
    """What `gc` may remove. Flags widen the default, filters narrow it.

    `names` are names, ids or ids of jobs. A named resource is removed although it is live or of
    another home.
    """

    names: Collection[str] = ()
    backend: str | None = None
    kinds: Collection[str] = ()
    expired_only: bool = False
    days: float = 0.0
    live: bool = False
    all_homes: bool = False


@dataclass(frozen=True)
class Garbage:
    """The resources that may be removed, and cloudft's resources that are kept, with the reason.

    `rollbacks` has, by ARN of a model that may be removed, the deployments that could be rolled
    back to it.
    """

    removable: tuple[CloudResource, ...]
    kept: tuple[tuple[CloudResource, KeptReason], ...]
    unavailable: tuple[UnavailablePart, ...]
    rollbacks: Mapping[str, tuple[CloudResource, ...]] = field(default_factory=dict)


def find_garbage(listing: Listing[CloudResource], home: Home, criteria: GarbageCriteria) -> Garbage:
    """Select the removable resources of a listing of every backend: one may read another's data.

    Raise UsageError for a named resource that cloudft did not create, and JobStateConflict for one
    that runs, or whose commitment has not ended. For a name that matches nothing, raise UsageError;
    or CloudRefused or CloudUnreachable where it may be in a part that can't be read.
    """
    if criteria.backend not in (None, *backends_with_account()):
        raise _no_account_error(str(criteria.backend))
    _check_names(listing, criteria.names)
    known = _HomeKnowledge(listing, home)
    removable: list[CloudResource] = []
    kept: list[tuple[CloudResource, KeptReason]] = []
    for resource in listing.items:
        if (
            resource.job is None
            or resource.kind in RUNNING_KINDS | UNREMOVABLE_KINDS
            or not _matches(resource, criteria)
        ):
            continue
        if criteria.names and not _is_named(resource, criteria.names):
            continue
        why = known.reason_to_keep(resource, criteria)
        if why is None:
            removable.append(resource)
        else:
            kept.append((resource, why))
    all_backends = criteria.backend is None
    parts = [
        p for p in listing.unavailable if all_backends or p.what.startswith(f"{criteria.backend}: ")
    ]
    return Garbage(
        tuple(removable), tuple(kept), tuple(parts), _rollbacks(listing.items, removable)
    )


def _rollbacks(
    resources: Sequence[CloudResource], removable: Sequence[CloudResource]
) -> dict[str, tuple[CloudResource, ...]]:
    """Return the deployments that stay and could be rolled back to a model that is removed."""
    staying = [resource for resource in resources if resource not in removable]
    users = {
        model.id: tuple(one for one in staying if one.previous_model == model.id)
        for model in removable
        if model.kind in MODEL_KINDS
    }
    return {model: deployments for model, deployments in users.items() if deployments}


def _matches(resource: CloudResource, criteria: GarbageCriteria) -> bool:
    """Return whether a resource passes the filters."""
    newest = datetime.now(timezone.utc) - timedelta(days=criteria.days)
    return (
        criteria.backend in (None, resource.backend)
        and (not criteria.kinds or resource.kind in criteria.kinds)
        and (not criteria.expired_only or is_expired(resource))
        and (not criteria.days or datetime.fromisoformat(resource.created_at) <= newest)
    )


def _is_named(resource: CloudResource, names: Collection[str]) -> bool:
    return bool((_own_names(resource) | _owning_jobs(resource)) & set(names))


def _own_names(resource: CloudResource) -> set[str]:
    """Return the names of this resource alone. Staged files share names, so they go by id."""
    return {resource.id} if resource.kind == "data" else {resource.id, resource.name}


def _owning_jobs(resource: CloudResource) -> set[str]:
    """Return the jobs that a resource belongs to; none for what cloudft did not create."""
    return set() if resource.job is None else {resource.job, *resource.also}


def _stop_remedy(resource: CloudResource) -> str:
    """Return the command that ends what is running."""
    if resource.kind == "evaluation-job":
        return f"`aws bedrock stop-evaluation-job --job-identifier {resource.id}` ends it."
    return f"`cloudft stop {resource.job}` ends it."


def _check_names(listing: Listing[CloudResource], names: Collection[str]) -> None:
    """Raise for names of others' resources, of running jobs, and of nothing."""
    for name in names:
        resources = [resource for resource in listing.items if _is_named(resource, [name])]
        for resource in resources:
            if not resource.job_known:
                raise _unavailable_error(
                    f"can't tell whether cloudft created {name}", listing.unavailable
                )
            if resource.job is None:
                raise not_owned_error(resource)
            if resource.kind in RUNNING_KINDS:
                raise JobStateConflict(f"{resource.name} is running", fix=_stop_remedy(resource))
            if resource.kind in UNREMOVABLE_KINDS:
                message = f"{resource.name} can't be removed: no call for it is documented"
                raise JobStateConflict(message, fix="remove it in Bedrock's console.")
            if resource.is_committed():
                raise committed_error(resource)
        if not resources:
            what = f"no resource is named {name}"
            if listing.unavailable:
                raise _unavailable_error(what, listing.unavailable)
            raise UsageError(what, fix="`cloudft ps` lists names; or check --profile and --region.")


def _unavailable_error(what: str, parts: Sequence[UnavailablePart]) -> CloudftError:
    first = min(parts, key=lambda part: part.exit_code)
    error_class = CloudRefused if first.exit_code == CloudRefused.exit_code else CloudUnreachable
    return error_class(f"{what}: {first.what} can't be read: {first.reason}", fix=first.fix)


class _HomeKnowledge:
    """Knowledge of this home about the resources of an account."""

    def __init__(self, listing: Listing[CloudResource], home: Home) -> None:
        self._submitted = SubmittedJobs(home.jobs).job_ids()
        self._jobs = frozenset(Store(home.jobs).job_ids())
        # A model that a deployment could be rolled back to is needed, too.
        self._served = {
            model
            for resource in listing.items
            for model in (resource.model, resource.previous_model, resource.next_model)
        }
        self._complete = not listing.unavailable
        parts = [part.what for part in listing.unavailable]
        self._use_is_known = not any(part.endswith(IN_USE_PART_SUFFIX) for part in parts)

    def reason_to_keep(
        self, resource: CloudResource, criteria: GarbageCriteria
    ) -> KeptReason | None:
        """Return why a resource is kept, or None when it may be removed.

        A job's name selects what it shares with jobs of other homes only where these are named too.
        """
        names = set(criteria.names)
        if resource.is_committed():  # AWS refuses to remove it
            return "committed"
        if _own_names(resource) & names:
            return None
        if not (criteria.all_homes or _owning_jobs(resource) <= self._submitted | names):
            return "another-home"
        # No flag removes data that a job of an unreadable part may be reading.
        if resource.kind == "data" and not self._use_is_known:
            return "use-unknown"
        if names or criteria.live or is_expired(resource) or self._is_orphaned(resource):
            return None
        return "live"

    def _is_orphaned(self, resource: CloudResource) -> bool:
        """Return whether nothing needs the resource any more.

        Staged data is listed for ended jobs only; it is orphaned when the jobs of all backends
        could be read. A model is orphaned when its job was deleted here, and nothing serves it or
        could be rolled back to it, provided that everything could be read.
        """
        if resource.kind == "data":
            return resource.status != RESUMABLE and self._use_is_known
        return (
            resource.kind in MODEL_KINDS
            and self._complete
            and _owning_jobs(resource) <= self._submitted
            and resource.job not in self._jobs
            and resource.id not in self._served
        )


def remove_resources(
    home: Home, location: Location, resources: Sequence[CloudResource]
) -> Iterator[CloudResource]:
    """Remove these one by one; yield each that is gone.

    Raise UsageError for one without cloudft's tag, before anything is removed, and
    ResourceConflict.
    """
    for resource in resources:
        if resource.job is None:
            raise not_owned_error(resource)
    # Second pass: the check above refuses the whole list before anything is removed.
    for resource in resources:
        _inventory_backend(resource.backend, home, location).remove_resource(resource)
        yield resource
