"""Findings as they come up, a flood of one kind cut short."""

from __future__ import annotations

from collections import Counter

from cloudft.types import Finding, Severity

MAX_LISTED = 20
"""So many findings of one code in one file are listed; one more tells how many there are."""
FILE_LEVEL_CODES = frozenset({"WrongTask", "MixedShapes", "MixedTypes", "CarriageReturns"})
"""What is true of a whole file is said once."""


class Findings:
    """Collects the findings of one staging."""

    def __init__(self) -> None:
        self._listed: list[Finding] = []
        self._counts: Counter[tuple[str | None, str, Severity]] = Counter()

    def add(
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
        """Add one finding."""
        kind = (file, code, severity)
        self._counts[kind] += 1
        if self._counts[kind] <= _most(code):
            self._listed.append(Finding(severity, code, message, fix, file, line, field))

    def all(self) -> tuple[Finding, ...]:
        """The listed ones in order, then a line for each flood."""
        floods = [
            Finding(severity, code, f"{count - _most(code)} more, {count} in all", file=file)
            for (file, code, severity), count in self._counts.items()
            if count > _most(code) and code not in FILE_LEVEL_CODES
        ]
        return (*self._listed, *floods)

    def has_any(self) -> bool:
        """True when there is one."""
        return bool(self._listed)

    def count_errors(self, file: str | None = None) -> int:
        """How many errors there are, in all or in one file."""
        return sum(
            count
            for (where, _, severity), count in self._counts.items()
            if severity == "error" and (file is None or where == file)
        )


def _most(code: str) -> int:
    return 1 if code in FILE_LEVEL_CODES else MAX_LISTED
