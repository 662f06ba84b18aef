"""Lists, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from cloudft.endpoint.protocols.messages import ServiceError

Resource = TypeVar("Resource")
DEFAULT_PAGE_SIZE = 1000


def paginate(
    things: Sequence[Resource], given: Mapping[str, Any]
) -> tuple[list[Resource], dict[str, str]]:
    """The things of one page, and `nextToken` when there are more.

    Sorted by creation, the newest first unless `sortOrder` says otherwise, as the API does.
    """
    ordered = sorted(
        things,
        key=lambda thing: getattr(thing, "created"),  # noqa: B009  (every thing here has it)
        reverse=given.get("sortOrder", "Descending") == "Descending",
    )
    try:
        start = int(given.get("nextToken", 0))
        if start < 0:
            raise ValueError(start)
    except ValueError:
        raise ServiceError("ValidationException", "The nextToken is invalid") from None
    end = start + int(given.get("maxResults", DEFAULT_PAGE_SIZE))
    return ordered[start:end], {"nextToken": str(end)} if end < len(ordered) else {}


def filter_by_name_and_time(things: Iterable[Resource], given: Mapping[str, Any]) -> list[Resource]:
    """Those that the common filters let through: a part of the name, and times of creation.

    Most lists say `creationTimeAfter`, deployments `createdAfter` (botocore's model).
    """
    after = given.get("creationTimeAfter") or given.get("createdAfter")
    before = given.get("creationTimeBefore") or given.get("createdBefore")
    return [
        thing
        for thing in things
        if given.get("nameContains", "") in getattr(thing, "name")  # noqa: B009
        and (after is None or getattr(thing, "created") > after)  # noqa: B009
        and (before is None or getattr(thing, "created") < before)  # noqa: B009
    ]
