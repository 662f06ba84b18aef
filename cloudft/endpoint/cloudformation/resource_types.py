"""The interface of resource types: how one is created and deleted, by the calls of its service.

`create` returns what `Ref` and `Fn::GetAtt` return; `remove` gets the resource that it created. A
property that a type does not list is refused: either the template is fulfilled, or the stack says
why not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from cloudft.endpoint.clients import ClientFactory
from cloudft.endpoint.cloudformation.records import StackResource
from cloudft.infra.intrinsics import CreatedResource

if TYPE_CHECKING:
    pass

Properties: TypeAlias = Mapping[str, Any]
"""Resolved properties of a resource in a template. Their shape depends on the resource type."""


Arguments: TypeAlias = dict[str, object]
"""Keyword arguments of a boto3 call."""


@dataclass(frozen=True)
class ResourceRequest:
    """A resource to create or update: its properties, a unique physical name, and the clients."""

    properties: Properties
    name: str
    client: ClientFactory
    account: str
    region: str

    def pick(self, *names: str) -> Arguments:
        """Return those of the named properties that the template has."""
        return {name: self.properties[name] for name in names if name in self.properties}


@dataclass(frozen=True)
class ResourceType:
    """One resource type.

    `property_names` are the properties that it supports. `update` changes a resource in place;
    without it, a change replaces the resource. `detect_drift` returns the names of the properties
    that differ from the template; without it, drift is not checked.
    """

    property_names: frozenset[str]
    create: Callable[[ResourceRequest], CreatedResource]
    remove: Callable[[ClientFactory, StackResource], None]
    update: Callable[[ResourceRequest, StackResource], None] | None = None
    detect_drift: Callable[[ClientFactory, StackResource], list[str]] | None = None


RESOURCE_TYPES: dict[str, ResourceType] = {}
"""Resource types by name. The modules of `resources` fill it when they are imported."""


def property_names(*names: str) -> frozenset[str]:
    """Return the property names of a type."""
    return frozenset(names)


def tags_of(properties: Properties) -> list[dict[str, str]]:
    """Return the tags of a resource in the form that most services take: `Key` and `Value`."""
    return [dict(tag) for tag in properties.get("Tags", ())]
