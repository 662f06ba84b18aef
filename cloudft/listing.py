"""Listings that are gathered part by part: one that can't be read does not hide the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

from cloudft.errors import AwsRefused, AwsUnreachable, CloudftError
from cloudft.types import Listing, Unavailable

T = TypeVar("T")


def unavailable(what: str, error: CloudftError) -> Unavailable:
    """Return an error as what it leaves unread."""
    return Unavailable(what, error.code, error.message, error.exit_code, error.fix)


class Gathering:
    """Collects items, and the parts that can't be read.

    Only AwsRefused and AwsUnreachable make a part unavailable; other errors pass. An item that came
    before its part broke off stays: it is there.
    """

    def __init__(self) -> None:
        self._unavailable: list[Unavailable] = []

    def part(self, what: str, items: Callable[[], Iterable[T]]) -> list[T]:
        """Return the items of one part, as far as they come."""
        found: list[T] = []
        try:
            for item in items():
                found.append(item)
        except (AwsRefused, AwsUnreachable) as error:
            self.miss(what, error)
        return found

    def miss(self, what: str, error: AwsRefused | AwsUnreachable) -> None:
        """Note that a part can't be read."""
        self._unavailable.append(unavailable(what, error))

    def add(self, listing: Listing[T]) -> list[T]:
        """Return the items of a listing that is a part of this one."""
        self._unavailable += listing.unavailable
        return list(listing.items)

    def listing(self, items: Iterable[T]) -> Listing[T]:
        """Return these items with everything that could not be read."""
        return Listing(tuple(items), tuple(dict.fromkeys(self._unavailable)))
