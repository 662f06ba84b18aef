"""Collect findings as they come up, and cut floods of one kind short."""

from __future__ import annotations

import re
from collections import Counter

from cloudft.types import Finding, Severity

MAX_LISTED = 20
"""Findings of one code in one file that are listed; one more finding counts the rest."""
FILE_LEVEL_CODES = frozenset(
    {"WrongTask", "MixedShapes", "MixedTypes", "CarriageReturns", "MediaData"}
)
"""Codes of what holds for a whole file: listed once."""

MEASURED_CODES = frozenset({"WrongKeys", "UnusedKeys"})
"""Codes of messages that say how long values are: the same but for these numbers, listed once."""
_NUMBERS = re.compile(r"(?<=, )\d+(?= characters)|(?<=list of )\d+")


class Findings:
    """The findings of one pass over some data."""

    def __init__(self) -> None:
        self._listed: list[Finding] = []
        self._messages: set[tuple[str | None, str, Severity, str]] = set()
        self._counts: Counter[tuple[str | None, str, Severity]] = Counter()
        self._listed_counts: Counter[tuple[str | None, str, Severity]] = Counter()

    def add(  # noqa: PLR0913  # the fields of a finding
        self,
        code: str,
        message: str,
        fix: str,
        *,
        file: str | None = None,
        line: int | None = None,
        field: str | None = None,
        severity: Severity = "error",
    ) -> None:
        """Add one finding. One that says what an earlier one of the file says is only counted."""
        kind = (file, code, severity)
        self._counts[kind] += 1
        said = _NUMBERS.sub("#", message) if code in MEASURED_CODES else message
        if self._listed_counts[kind] >= _max_listed(code) or (*kind, said) in self._messages:
            return
        self._messages.add((*kind, said))
        self._listed_counts[kind] += 1
        self._listed.append(Finding(severity, code, message, fix or None, file, line, field))

    def all(self) -> tuple[Finding, ...]:
        """Return the listed findings in order, then one for each flood that was cut short."""
        floods = [
            Finding(severity, code, f"{count - listed} more, {count} in all", file=file)
            for (file, code, severity), count in self._counts.items()
            if count > (listed := self._listed_counts[file, code, severity])
            and code not in FILE_LEVEL_CODES
        ]
        return (*self._listed, *floods)

    def has_any(self) -> bool:
        """Return whether there is an error or a warning."""
        return any(finding.severity != "note" for finding in self._listed)

    def count_errors(self, file: str | None = None) -> int:
        """Return how many errors there are, in all or in one file."""
        return sum(
            count
            for (name, _, severity), count in self._counts.items()
            if severity == "error" and (file is None or name == file)
        )


def _max_listed(code: str) -> int:
    return 1 if code in FILE_LEVEL_CODES else MAX_LISTED
