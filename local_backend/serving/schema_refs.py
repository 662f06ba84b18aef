"""Find references of a JSON schema that lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote

DATA_KEYWORDS = frozenset({"const", "default", "enum", "examples"})
"""Keywords whose values are data and no schemas."""


def find_circular_ref(schema: Mapping[str, Any]) -> str | None:
    """Return a `$ref` that leads through others back to itself; None if there is none.

    llguidance takes a schema that has no other keyword than such a one, and no answer keeps it.

    >>> find_circular_ref({"properties": {"a": {"$ref": "#/$defs/b"}}, "$defs": {"b": {}}})
    >>> find_circular_ref({"$defs": {"b": {"$ref": "#/$defs/b"}}})
    '#/$defs/b'
    """
    ending: set[str] = set()
    for ref in _refs(schema):
        path: set[str] = set()
        following: Any = ref
        while isinstance(following, str) and following not in ending:
            if following in path:
                return following
            path.add(following)
            target = _resolve(schema, following)
            following = target.get("$ref") if isinstance(target, Mapping) else None
        ending |= path
    return None


def _refs(schema: Mapping[str, Any]) -> Iterator[str]:
    """Yield the values of `$ref` in a schema and those within it."""
    waiting: list[Any] = [schema]
    while waiting:
        value = waiting.pop()
        if isinstance(value, list):
            waiting += value
        elif isinstance(value, Mapping):
            if isinstance(value.get("$ref"), str):
                yield value["$ref"]
            waiting += [item for name, item in value.items() if name not in DATA_KEYWORDS]


def _resolve(schema: Mapping[str, Any], ref: str) -> Any:
    """Return what a JSON pointer such as `#/$defs/a` leads to; None for any other reference."""
    if ref != "#" and not ref.startswith("#/"):
        return None
    found: Any = schema
    for part in unquote(ref).split("/")[1:]:
        name = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, Mapping):
            found = found.get(name)
        elif isinstance(found, list) and name.isdigit() and int(name) < len(found):
            found = found[int(name)]
        else:
            return None
    return found
