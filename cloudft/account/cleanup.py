"""What is there in an account, and the removal of what cloudft made there.

Nothing is removed that does not carry cloudft's mark, the tag with its job. Of what does, only what
is expired or orphaned and of a job that this home has submitted goes unasked; the rest by name or
flag.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from typing import Any, Literal

from cloudft.backends import TRAINING_BACKENDS, backend_class
from cloudft.backends import make_backend as backend_by_name
from cloudft.backends.capabilities import SupportsInventory
from cloudft.backends.partial_listing import ListingBuilder
from cloudft.backends.resources import IN_USE, IN_USE_PART_SUFFIX, CloudResource, not_owned_error
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

Location = Mapping[str, Any]
KeptReason = Literal["live", "another-home"]
RESUMABLE = "resumable"
"""The status of data of a job that can go on, and then reads it again."""
RUNNING_KINDS = {"training-job"}
"""Kinds that work: they are listed with their cost, and are no garbage."""
MODEL_KINDS = {"custom-model", "imported-model"}


def backends_with_account() -> list[str]:
    """The names of the backends that have an account."""
    return [
        name for name in TRAINING_BACKENDS if issubclass(backend_class(name), SupportsInventory)
    ]


def _inventory_backend(backend_name: str, home: Home, place: Location) -> SupportsInventory:
    backend = backend_by_name(backend_name, home).bind(place)
    if not isinstance(backend, SupportsInventory):
        raise _no_account_error(backend_name)
    return backend


def _no_account_error(backend_name: str) -> UsageError:
    fix = f"use {' or '.join(backends_with_account())}."
    return UsageError(f"the backend {backend_name} has no account", fix=fix)


def list_account(backend_name: str | None, home: Home, place: Location) -> Listing[CloudResource]:
    """Return all that is there, in the order in which it may be removed.

    Without a name, on every backend that has an account. What can't be read is `unavailable`. Data
    that a running job of any of them reads is left out.
    """
    gathering = ListingBuilder()
    names = backends_with_account() if backend_name is None else [backend_name]
    found = [
        thing
        for name in names
        for thing in gathering.merge(_inventory_backend(name, home, place).list_resources())
    ]
    return gathering.build(_merge_shared_data(found))


def _merge_shared_data(things: Sequence[CloudResource]) -> list[CloudResource]:
    """Leave out data in use, and make data that several backends list one thing of all its jobs."""
    used = [thing.id for thing in things if thing.status == IN_USE]
    found: dict[tuple[str, str], CloudResource] = {}
    for thing in things:
        key = (thing.kind, thing.id)
        is_data = thing.kind == "data"
        if is_data and any(thing.id.startswith(u) or u.startswith(thing.id) for u in used):
            continue
        if is_data and key in found:
            first = found[key]
            jobs = [job for job in (*first.also, thing.job, *thing.also) if job != first.job]
            status = max(first.status, thing.status, key=lambda status: status == RESUMABLE)
            also = tuple(dict.fromkeys(str(job) for job in jobs))
            thing = replace(first, also=also, status=status)
        found[key] = thing
    return list(found.values())


def is_expired(thing: CloudResource, now: datetime | None = None) -> bool:
    """Return whether the time to live is over; a tag that is no time says nothing."""
    try:
        end = datetime.fromisoformat(thing.expires_at or "")
    except ValueError:
        return False
    end = end if end.tzinfo else end.replace(tzinfo=timezone.utc)
    return end <= (now or datetime.now(timezone.utc))


def total_usd(things: Sequence[CloudResource]) -> dict[str, float]:
    """Return what all of them cost, as far as prices are known."""
    return {unit: sum(t.usd[unit] or 0.0 for t in things) for unit in ("perHour", "perMonth")}


@dataclass(frozen=True)
class GarbageCriteria:
    """What `gc` may remove beyond its default: flags widen, filters narrow, names mean themselves.

    `names` are names, ids or jobs' ids; what is named goes although it is live or another home's.
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
    """What may be removed, and what of cloudft's is left, each with the reason."""

    removable: tuple[CloudResource, ...]
    kept: tuple[tuple[CloudResource, KeptReason], ...]
    unavailable: tuple[UnavailablePart, ...]


def find_garbage(listing: Listing[CloudResource], home: Home, criteria: GarbageCriteria) -> Garbage:
    """Sort what was listed on every backend: one may read the data of another.

    Raises UsageError, naming it, for a named thing that is not cloudft's, and JobStateConflict for
    one that runs; for a name that nothing has UsageError, or AwsRefused or AwsUnreachable where it
    may be in the part that can't be read.
    """
    if criteria.backend not in (None, *backends_with_account()):
        raise _no_account_error(str(criteria.backend))
    _check_names(listing, criteria.names)
    known = _HomeKnowledge(listing, home)
    removable: list[CloudResource] = []
    left: list[tuple[CloudResource, KeptReason]] = []
    for thing in listing.items:
        if thing.job is None or thing.kind in RUNNING_KINDS or not _matches(thing, criteria):
            continue
        if criteria.names and not _is_named(thing, criteria.names):
            continue
        why = known.reason_to_keep(thing, criteria)
        if why is None:
            removable.append(thing)
        else:
            left.append((thing, why))
    told = criteria.backend is None
    parts = [p for p in listing.unavailable if told or p.what.startswith(f"{criteria.backend}: ")]
    return Garbage(tuple(removable), tuple(left), tuple(parts))


def _matches(thing: CloudResource, wanted: GarbageCriteria) -> bool:
    """Return whether the filters let a thing pass."""
    newest = datetime.now(timezone.utc) - timedelta(days=wanted.days)
    return (
        wanted.backend in (None, thing.backend)
        and (not wanted.kinds or thing.kind in wanted.kinds)
        and (not wanted.expired_only or is_expired(thing))
        and (not wanted.days or datetime.fromisoformat(thing.created_at) <= newest)
    )


def _is_named(thing: CloudResource, names: Collection[str]) -> bool:
    return bool((_own_names(thing) | _owning_jobs(thing)) & set(names))


def _own_names(thing: CloudResource) -> set[str]:
    """Return what means this thing alone. Staged files share their names: they go by id."""
    return {thing.id} if thing.kind == "data" else {thing.id, thing.name}


def _owning_jobs(thing: CloudResource) -> set[str]:
    """Return the jobs that a thing belongs to; none for what is not cloudft's."""
    return set() if thing.job is None else {thing.job, *thing.also}


def _check_names(listing: Listing[CloudResource], names: Collection[str]) -> None:
    """Raise for names of what is not cloudft's, of what runs, and of nothing."""
    for name in names:
        things = [thing for thing in listing.items if _is_named(thing, [name])]
        for thing in things:
            if not thing.job_known:
                raise _unavailable_error(
                    f"whether {name} is cloudft's is not known", listing.unavailable
                )
            if thing.job is None:
                raise not_owned_error(thing)
            if thing.kind in RUNNING_KINDS:
                raise JobStateConflict(
                    f"{thing.name} is running", fix=f"`cloudft stop {thing.job}` ends it."
                )
        if not things:
            what = f"nothing here is named {name}"
            if listing.unavailable:
                raise _unavailable_error(what, listing.unavailable)
            raise UsageError(what, fix="`cloudft ps` lists names; or check --profile and --region.")


def _unavailable_error(what: str, parts: Sequence[UnavailablePart]) -> CloudftError:
    first = min(parts, key=lambda part: part.exit_code)
    kind = CloudRefused if first.exit_code == CloudRefused.exit_code else CloudUnreachable
    return kind(f"{what}: {first.what} can't be read: {first.reason}", fix=first.fix)


class _HomeKnowledge:
    """What this home knows of an account's things."""

    def __init__(self, listing: Listing[CloudResource], home: Home) -> None:
        self._submitted = SubmittedJobs(home.jobs).job_ids()
        self._jobs = frozenset(Store(home.jobs).job_ids())
        self._served = {thing.model for thing in listing.items}
        self._complete = not listing.unavailable
        parts = [part.what for part in listing.unavailable]
        self._use_is_known = not any(part.endswith(IN_USE_PART_SUFFIX) for part in parts)

    def reason_to_keep(self, thing: CloudResource, wanted: GarbageCriteria) -> KeptReason | None:
        """Return why a thing stays; None when it may go.

        A job's name means what it shares with jobs of other homes only where these are named, too.
        """
        names = set(wanted.names)
        if _own_names(thing) & names:
            return None
        if not (wanted.all_homes or _owning_jobs(thing) <= self._submitted | names):
            return "another-home"
        if names or wanted.live or is_expired(thing) or self._is_orphaned(thing):
            return None
        return "live"

    def _is_orphaned(self, thing: CloudResource) -> bool:
        """Return whether nothing needs it any more.

        Staged data is listed for ended jobs alone; it is orphaned when the jobs of all backends
        could be read. A model is when its job was deleted here and nothing serves it, as far as
        everything could be read.
        """
        if thing.kind == "data":
            return thing.status != RESUMABLE and self._use_is_known
        return (
            thing.kind in MODEL_KINDS
            and self._complete
            and _owning_jobs(thing) <= self._submitted
            and thing.job not in self._jobs
            and thing.id not in self._served
        )


def remove_resources(
    home: Home, place: Location, things: Sequence[CloudResource]
) -> Iterator[CloudResource]:
    """Remove these, one after the other; yields each that is gone.

    Raises UsageError for one without cloudft's mark, before anything is removed, and AwsConflict.
    """
    for thing in things:
        if thing.job is None:
            raise not_owned_error(thing)
    for thing in things:
        _inventory_backend(thing.backend, home, place).remove_resource(thing)
        yield thing
