"""Listings that are collected part by part: one unreadable part does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from cloudft.errors import CloudftError, CloudRefused, CloudUnreachable
from cloudft.types import Listing, UnavailablePart

T = TypeVar("T")


def unavailable_part(what: str, error: CloudftError) -> UnavailablePart:
    """Return the part of a listing that an error leaves unread."""
    return UnavailablePart(what, error.code, error.message, error.exit_code, error.fix)


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
