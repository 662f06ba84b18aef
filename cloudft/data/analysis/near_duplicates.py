"""Find texts that are nearly the same, by MinHash and locality-sensitive hashing (rensa).

Similarity is the Jaccard index of two texts' shingles: word 3-grams, or character 5-grams of texts
under 20 words; case, digits and white space do not count. It is estimated from 128 hashes (standard
error 0.09 at most: Broder 1997).
"""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from cloudft.errors import UsageError

if TYPE_CHECKING:
    from rensa import RMinHash

NUM_HASHES, NUM_BANDS = 128, 32
SHORT_TEXT_WORDS = 20
DIGITS = re.compile(r"\d+")


class NearDuplicateIndex:
    """Remembers texts, and finds an earlier one that is similar to a new one.

    Takes about 2 KB a text. Raises UsageError if rensa is not installed.
    """

    def __init__(self, threshold: float) -> None:
        if find_spec("rensa") is None:
            raise UsageError(
                "near duplicates are found with rensa, which is not installed",
                fix="pip install 'cloudft[data]'",
            )
        from rensa import RMinHashLSH

        self._threshold = threshold
        self._index = RMinHashLSH(threshold=threshold, num_perm=NUM_HASHES, num_bands=NUM_BANDS)
        self._hashes: list[RMinHash] = []

    def query(self, text: str) -> tuple[int, float] | None:
        """Return number and similarity of the most similar earlier text, if it is near enough."""
        return self._find_nearest(_min_hash(text))

    def query_or_insert(self, text: str) -> tuple[int, float] | None:
        """Query; a text that no earlier one is similar to is inserted, numbered from 0."""
        hashed = _min_hash(text)
        nearest = self._find_nearest(hashed)
        if nearest is None:
            self._insert(hashed)
        return nearest

    def insert(self, text: str) -> None:
        """Insert the text whatever it is similar to, numbered from 0."""
        self._insert(_min_hash(text))

    def _insert(self, hashed: RMinHash) -> None:
        self._index.insert(len(self._hashes), hashed)
        self._hashes.append(hashed)

    def _find_nearest(self, hashed: RMinHash) -> tuple[int, float] | None:
        # -n: of equally similar texts the first one is taken.
        similar = [(self._hashes[n].jaccard(hashed), -n) for n in self._index.query(hashed)]
        if not similar or max(similar)[0] < self._threshold:
            return None
        similarity, number = max(similar)
        return -number, float(similarity)


def _min_hash(text: str) -> RMinHash:
    from rensa import RMinHash

    hashed = RMinHash(num_perm=NUM_HASHES, seed=1)
    hashed.update(make_shingles(text))
    return hashed


def make_shingles(text: str) -> list[str]:
    """Return the shingles by which a text is compared; at least one."""
    words = DIGITS.sub("0", text.lower()).split()
    if len(words) >= SHORT_TEXT_WORDS:
        return [" ".join(words[i : i + 3]) for i in range(len(words) - 2)]
    line = " ".join(words)
    return [line[i : i + 5] for i in range(max(1, len(line) - 4))]
