"""Name diagnostics and their levels for people. JSON keeps the names of the contract."""

from __future__ import annotations

DIAGNOSTIC_LABELS = {
    "data": "more data",
    "form": "answer format",
    "memorised": "memorization",
}
"""Name in JSON -> name for people, where they differ."""
LEVEL_LABELS = {"good": "OK", "warning": "Warning", "bad": "Problem"}
"""Level in JSON -> name for people."""


def diagnostic_label(name: str) -> str:
    """Return the name of a diagnostic for people: `form` -> `answer format`."""
    return DIAGNOSTIC_LABELS.get(name, name)
