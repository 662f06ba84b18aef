"""Patch how moto's interpreter of state machines reads a JSONPath.

moto 5.2.5 returns a list of one value where the last index is followed by a name, as in
`$.Body.results[0].outputText`: a rule for filters and wildcards that it applies to every index. A
path that names one node yields its value (Amazon States Language, "Paths"); the developer guide's
sample "Perform AI prompt-chaining with Amazon Bedrock" reads
`$.result_one.Body.generations[0].text` as a text.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from jsonpath_ng.jsonpath import DatumInContext
from moto.stepfunctions.parser.asl.utils import json_path

QUOTED_NAME = re.compile(r"'[^']*'|\"[^\"]*\"")
INDEFINITE = re.compile(r"\.\.|[*?:,]")
"""A descent, wildcard, filter, slice or list of indices: any of them may match many nodes."""


def patch_json_path() -> None:
    """Make moto's `extract_json` return the value of a definite path."""
    parse: Callable[[str], Any] = json_path.parse

    def parse_path(path: str) -> Any:
        return _DefinitePath(parse(path)) if is_definite(path) else parse(path)

    json_path.parse = parse_path


def is_definite(path: str) -> bool:
    """Return whether a JSONPath names one node at most."""
    return not INDEFINITE.search(QUOTED_NAME.sub("", path))


class _DefinitePath:
    """A parsed path whose match has no context: moto makes a list of one by the context alone."""

    def __init__(self, parsed: Any) -> None:
        self._parsed = parsed

    def find(self, data: object) -> list[DatumInContext]:
        """Return the match in `data`, or none."""
        return [DatumInContext(match.value) for match in self._parsed.find(data)]
