"""Texts that are nearly the same, by MinHash and locality-sensitive hashing (rensa).

Similarity is the Jaccard index of two texts' pieces: word 3-grams, or character 5-grams of texts
under 20 words; case, digits and white space do not count. It is estimated from 128 hashes (standard
error 0.09 at most: Broder 1997).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import Any

from cloudft.errors import UsageError

NUM_HASHES, NUM_BANDS = 128, 32
SHORT_TEXT_WORDS = 20
DIGITS = re.compile(r"\d+")


class NearDuplicateIndex:
    """Remembers texts, and finds an earlier one that is like a new one. Takes about 2 KB a text."""

    def __init__(self, threshold: float) -> None:
        if find_spec("rensa") is None:
            raise UsageError(
                "near duplicates are found with rensa, which is not installed",
                fix="pip install 'cloudft[data]'",
            )
        from rensa import RMinHashLSH

        self._threshold = threshold
        self._index: Any = RMinHashLSH(
            threshold=threshold, num_perm=NUM_HASHES, num_bands=NUM_BANDS
        )
        self._hashes: list[Any] = []

    def query(self, text: str) -> tuple[int, float] | None:
        """The number and the similarity of the most similar earlier text, if one is near."""
        return self._nearest(_hashed(text))

    def query_or_insert(self, text: str) -> tuple[int, float] | None:
        """The same; a text that is like none before is remembered, under the next number from 0."""
        hashed = _hashed(text)
        found = self._nearest(hashed)
        if found is None:
            self._index.insert(len(self._hashes), hashed)
            self._hashes.append(hashed)
        return found

    def _nearest(self, hashed: Any) -> tuple[int, float] | None:
        alike = [(self._hashes[n].jaccard(hashed), -n) for n in self._index.query(hashed)]
        if not alike or max(alike)[0] < self._threshold:
            return None
        similarity, number = max(alike)
        return -number, float(similarity)


def _hashed(text: str) -> Any:
    from rensa import RMinHash

    hashed = RMinHash(num_perm=NUM_HASHES, seed=1)
    hashed.update(make_shingles(text))
    return hashed


def make_shingles(text: str) -> list[str]:
    """What is compared of a text; never nothing."""
    words = DIGITS.sub("0", text.lower()).split()
    if len(words) >= SHORT_TEXT_WORDS:
        return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
    line = " ".join(words)
    return [line[i : i + 5] for i in range(max(1, len(line) - 4))]
