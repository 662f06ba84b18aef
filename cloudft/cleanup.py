"""What stands in an account, and the removal of what cloudft made there."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import Any

from cloudft.backends import backend as backend_by_name
from cloudft.backends.base import Inventories, Thing
from cloudft.errors import UsageError
from cloudft.home import Home

Place = Mapping[str, Any]


def _account(backend_name: str, home: Home, place: Place) -> Inventories:
    backend = backend_by_name(backend_name, home).at(place)
    if not isinstance(backend, Inventories):
        raise UsageError(f"the backend {backend_name} has no account", fix="use bedrock.")
    return backend


def everything(backend_name: str, home: Home, place: Place) -> list[Thing]:
    """All that stands there, in the order in which it may be removed."""
    return list(_account(backend_name, home, place).inventory())


def expired(thing: Thing, now: datetime | None = None) -> bool:
    """True of something that has outlived its time to live."""
    if thing.expires_at is None:
        return False
    return datetime.fromisoformat(thing.expires_at) <= (now or datetime.now(timezone.utc))


def total(things: Sequence[Thing]) -> dict[str, float]:
    """What all of them cost, as far as prices are known."""
    return {unit: sum(t.usd[unit] or 0.0 for t in things) for unit in ("perHour", "perMonth")}


def ours(
    backend_name: str,
    home: Home,
    place: Place,
    *,
    kinds: Collection[str] = (),
    expired_only: bool = False,
    days: float = 0.0,
) -> list[Thing]:
    """What cloudft made there, by its tags: of these kinds, and older than so many days."""
    newest = datetime.now(timezone.utc) - timedelta(days=days)
    return [
        thing
        for thing in everything(backend_name, home, place)
        if thing.job is not None
        and (not kinds or thing.kind in kinds)
        and (not expired_only or expired(thing))
        and datetime.fromisoformat(thing.created_at) <= newest
    ]


def remove(backend_name: str, home: Home, place: Place, things: Sequence[Thing]) -> Iterator[Thing]:
    """Remove these, one after the other; each that is gone is told. Raises AwsConflict."""
    account = _account(backend_name, home, place)
    for thing in things:
        account.remove(thing)
        yield thing
