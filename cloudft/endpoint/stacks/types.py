"""How each type of resource is made and removed: by the calls of its own service.

A type's `make` gives what `Ref` and `GetAtt` give; `remove` gets the piece that it made. A property
that a type does not know is refused: what the template says is done, or the stack says why not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from cloudft.endpoint.stacks.records import Piece
from cloudft.infrastructure.evaluate import Made

Properties = Mapping[str, Any]
Services = Callable[[str], Any]


@dataclass(frozen=True)
class Asked:
    """A resource to be made: what is said of it, a physical name that is free, and the services."""

    properties: Properties
    name: str
    services: Services
    account: str
    region: str

    def take(self, *names: str) -> dict[str, Any]:
        """Those properties that are given."""
        return {name: self.properties[name] for name in names if name in self.properties}


@dataclass(frozen=True)
class Type:
    """One type. `known` are its properties; `update` changes it in place where it can."""

    known: frozenset[str]
    make: Callable[[Asked], Made]
    remove: Callable[[Services, Piece], None]
    update: Callable[[Asked, Piece], None] | None = None
    drifted: Callable[[Services, Piece], list[str]] | None = None
    """The properties that differ from what the template says; None: it is not looked at."""


TYPES: dict[str, Type] = {}


def known(*names: str) -> frozenset[str]:
    """The properties of a type."""
    return frozenset(names)


def tags_of(properties: Properties) -> list[dict[str, str]]:
    """Tags as most services take them."""
    return [dict(tag) for tag in properties.get("Tags", ())]
