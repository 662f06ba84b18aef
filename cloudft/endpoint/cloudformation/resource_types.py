"""How each type of resource is made and removed: by the calls of its own service.

A type's `make` gives what `Ref` and `GetAtt` give; `remove` gets the piece that it made. A property
that a type does not know is refused: what the template says is done, or the stack says why not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.infra.intrinsics import CreatedResource

Properties = Mapping[str, Any]
ClientFactory = Callable[[str], Any]


@dataclass(frozen=True)
class ResourceRequest:
    """A resource to be made: what is said of it, a physical name that is free, and the services."""

    properties: Properties
    name: str
    client: ClientFactory
    account: str
    region: str

    def pick(self, *names: str) -> dict[str, Any]:
        """Those properties that are given."""
        return {name: self.properties[name] for name in names if name in self.properties}


@dataclass(frozen=True)
class ResourceType:
    """One type. `known` are its properties; `update` changes it in place where it can."""

    property_names: frozenset[str]
    create: Callable[[ResourceRequest], CreatedResource]
    remove: Callable[[ClientFactory, StackResource], None]
    update: Callable[[ResourceRequest, StackResource], None] | None = None
    detect_drift: Callable[[ClientFactory, StackResource], list[str]] | None = None
    """The properties that differ from what the template says; None: it is not looked at."""


RESOURCE_TYPES: dict[str, ResourceType] = {}


def names_of(*names: str) -> frozenset[str]:
    """The properties of a type."""
    return frozenset(names)


def tags_of(properties: Properties) -> list[dict[str, str]]:
    """Tags as most services take them."""
    return [dict(tag) for tag in properties.get("Tags", ())]
