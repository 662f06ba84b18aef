"""What stands in an account, and the removal of what cloudft made there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from cloudft.backends import REGISTRY, type_of
from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import Inventories, Thing
from cloudft.errors import AwsRefused, AwsUnreachable, CloudftError, UsageError
from cloudft.home import Home

Place = Mapping[str, Any]
Tell = Callable[[CloudftError], None]


def _quiet(error: CloudftError) -> None:
    """Nobody is told."""


RUNS = {"training-job"}
"""Kinds that work: they are told with their cost, and no garbage."""


def accounts() -> list[str]:
    """The names of the backends that have an account."""
    return [name for name in REGISTRY if issubclass(type_of(name), Inventories)]


def _account(backend_name: str, home: Home, place: Place) -> Inventories:
    backend = backend_by_name(backend_name, home).at(place)
    if not isinstance(backend, Inventories):
        raise UsageError(
            f"the backend {backend_name} has no account", fix=f"use {' or '.join(accounts())}."
        )
    return backend


def everything(
    backend_name: str | None, home: Home, place: Place, tell: Tell = _quiet
) -> list[Thing]:
    """All that stands there, in the order in which it may be removed.

    Without a name, on every backend that has an account; `tell` gets the refusal of one that may
    not be asked. Raises AwsRefused and AwsUnreachable for a backend that is named, or when none of
    them may be asked.
    """
    if backend_name is not None:
        return list(_account(backend_name, home, place).inventory())
    found: list[Thing] = []
    refusals = []
    for name in accounts():
        try:
            found += _account(name, home, place).inventory()
        except (AwsRefused, AwsUnreachable) as error:
            refusals.append(error)
    if len(refusals) == len(accounts()):
        raise refusals[0]
    for refusal in refusals:
        tell(refusal)
    return found


def expired(thing: Thing, now: datetime | None = None) -> bool:
    """True of something that has outlived its time to live."""
    if thing.expires_at is None:
        return False
    return datetime.fromisoformat(thing.expires_at) <= (now or datetime.now(timezone.utc))


def total(things: Sequence[Thing]) -> dict[str, float]:
    """What all of them cost, as far as prices are known."""
    return {unit: sum(t.usd[unit] or 0.0 for t in things) for unit in ("perHour", "perMonth")}


def ours(
    backend_name: str | None,
    home: Home,
    place: Place,
    *,
    tell: Tell = _quiet,
    kinds: Collection[str] = (),
    expired_only: bool = False,
    days: float = 0.0,
) -> list[Thing]:
    """What cloudft made there, by its tags: of these kinds, and older than so many days."""
    newest = datetime.now(timezone.utc) - timedelta(days=days)
    return [
        thing
        for thing in everything(backend_name, home, place, tell)
        if thing.job is not None
        and thing.kind not in RUNS
        and (not kinds or thing.kind in kinds)
        and (not expired_only or expired(thing))
        and datetime.fromisoformat(thing.created_at) <= newest
    ]


def remove(home: Home, place: Place, things: Sequence[Thing]) -> Iterator[Thing]:
    """Remove these, one after the other; each that is gone is told. Raises AwsConflict."""
    for thing in things:
        _account(thing.backend, home, place).remove(thing)
        yield thing
