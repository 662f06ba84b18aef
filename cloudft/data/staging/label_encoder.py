"""Recognize answers that are labels: the few distinct ones of a classification."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import integer
    from numpy.typing import NDArray

MAX_LABELS = 50
"""Distinct answers that may still be labels."""
MIN_RECORDS_PER_LABEL = 2


class LabelEncoder:
    """Encodes answers as numbers. Takes a byte a record, and nothing once they are no labels."""

    def __init__(self) -> None:
        self._codes: dict[str, int] | None = {}
        self._seen: array[int] = array("B")

    def extend(self, answers: Iterable[str]) -> None:
        """Add more answers."""
        codes = self._codes
        if codes is None:
            return
        for answer in answers:
            code = codes.setdefault(answer, len(codes))
            if code >= MAX_LABELS:
                self._codes = None
                self._seen = array("B")
                return
            self._seen.append(code)

    def codes(self) -> NDArray[integer] | None:
        """Return a number an answer, by the order of the texts; None when they are no labels.

        Labels are between 2 and MAX_LABELS distinct answers, each of at least
        MIN_RECORDS_PER_LABEL records.
        """
        import numpy as np

        if not self._codes or len(self._codes) < 2:
            return None
        seen = np.frombuffer(self._seen, np.uint8)
        if np.bincount(seen).min() < MIN_RECORDS_PER_LABEL:
            return None
        # Codes in the order of the texts, so that they do not depend on the records' order.
        rank = np.empty(len(self._codes), np.int64)
        for index, answer in enumerate(sorted(self._codes)):
            rank[self._codes[answer]] = index
        ranked: NDArray[integer] = rank[seen]
        return ranked
