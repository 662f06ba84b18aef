"""Listings that are collected part by part: one unreadable part does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

from cloudft.errors import CloudftError, CloudRefused, CloudUnreachable
from cloudft.types import Listing, UnavailablePart

T = TypeVar("T")


def unavailable_part(what: str, error: CloudftError) -> UnavailablePart:
    """Return the part of a listing that an error leaves unread."""
    return UnavailablePart(what, error.code, error.message, error.exit_code, error.fix)


class UnreadParts(NamedTuple):
    """Parts that could not be read for one reason."""

    names: tuple[str, ...]
    reason: str
    fix: str | None


def group_unavailable(parts: Sequence[UnavailablePart]) -> list[UnreadParts]:
    """Return the parts of a listing that could not be read, by the reason."""
    groups: dict[tuple[str, str | None], list[UnavailablePart]] = {}
    for part in parts:
        # "ListDeployments: no credentials" and "ListModels: no credentials" are one reason.
        cause = part.reason.partition(": ")[2] or part.reason
        groups.setdefault((cause, part.fix), []).append(part)
    return [
        UnreadParts(
            tuple(part.what for part in same),
            same[0].reason if len({part.reason for part in same}) == 1 else reason,
            fix,
        )
        for (reason, fix), same in groups.items()
    ]


class ListingBuilder:
    """Collects items, and the parts that can't be read.

    Only CloudRefused and CloudUnreachable make a part unavailable; other errors propagate. Items
    that came before their part failed are kept: they exist.
    """

    def __init__(self) -> None:
        self._unavailable: list[UnavailablePart] = []

    def collect(self, what: str, items: Callable[[], Iterable[T]]) -> list[T]:
        """Return the items of one part, up to the error that ends it."""
        found: list[T] = []
        try:
            for item in items():
                found.append(item)
        except (CloudRefused, CloudUnreachable) as error:
            self.add_unavailable(what, error)
        return found

    def is_partial(self, what: str) -> bool:
        """Return whether a part could not be read to its end."""
        return any(part.what == what for part in self._unavailable)

    def add_unavailable(self, what: str, error: CloudRefused | CloudUnreachable) -> None:
        """Record that a part can't be read."""
        self._unavailable.append(unavailable_part(what, error))

    def merge(self, listing: Listing[T]) -> list[T]:
        """Return the items of another listing, and record its unavailable parts."""
        self._unavailable += listing.unavailable
        return list(listing.items)

    def build(self, items: Iterable[T]) -> Listing[T]:
        """Return a listing of these items with every part that could not be read."""
        return Listing(tuple(items), tuple(dict.fromkeys(self._unavailable)))
