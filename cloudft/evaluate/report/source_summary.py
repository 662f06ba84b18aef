"""Summarize the files that a job's data came from."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class SourceSummary(NamedTuple):
    """The files of one role. `formats` names each record format with its number of files."""

    role: str
    records: int
    formats: str
    files: list[Mapping[str, Any]]


def summarize_sources(sources: Sequence[Mapping[str, Any]]) -> list[SourceSummary]:
    """Return the manifest's sources by role, in their order."""
    by_role: dict[str, list[Mapping[str, Any]]] = {}
    for source in sources:
        by_role.setdefault(source["role"], []).append(source)
    return [
        SourceSummary(
            role,
            sum(source["records"] for source in files),
            ", ".join(
                name if count == len(files) else f"{name} ({count})"
                for name, count in Counter(source["shape"] for source in files).most_common()
            ),
            files,
        )
        for role, files in by_role.items()
    ]
