"""Filter, sort and paginate Bedrock's lists."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Protocol, TypeVar

from cloudft.endpoint.protocols.messages import Parameters, ServiceError

DEFAULT_PAGE_SIZE = 1000


class ListedResource(Protocol):
    """A resource that a list shows: it has a name and a time of creation."""

    created: datetime

    @property
    def name(self) -> str:
        """Return its name."""


Listed = TypeVar("Listed", bound=ListedResource)


def paginate(
    resources: Sequence[Listed], parameters: Parameters
) -> tuple[list[Listed], dict[str, str]]:
    """Return the resources of one page, and `nextToken` if there are more.

    They are sorted by creation, the newest first unless `sortOrder` says otherwise, as the API
    does. Raises ServiceError (ValidationException) for a `nextToken` that is none.
    """
    ordered = sorted(
        resources,
        key=lambda resource: resource.created,
        reverse=parameters.get("sortOrder", "Descending") == "Descending",
    )
    # The token is the index of the next resource: it needs no memory between two requests.
    try:
        start = int(parameters.get("nextToken", 0))
        if start < 0:
            raise ValueError(start)
    except ValueError:
        raise ServiceError("ValidationException", "The nextToken is invalid") from None
    end = start + int(parameters.get("maxResults", DEFAULT_PAGE_SIZE))
    return ordered[start:end], {"nextToken": str(end)} if end < len(ordered) else {}


def filter_by_name_and_time(resources: Iterable[Listed], parameters: Parameters) -> list[Listed]:
    """Return the resources that match the common filters: part of the name, time of creation.

    Most lists name the latter `creationTimeAfter`, deployments `createdAfter` (botocore's model).
    """
    name = parameters.get("nameContains", "")
    after = parameters.get("creationTimeAfter") or parameters.get("createdAfter")
    before = parameters.get("creationTimeBefore") or parameters.get("createdBefore")
    return [
        resource
        for resource in resources
        if name in resource.name
        and (after is None or resource.created > after)
        and (before is None or resource.created < before)
    ]
