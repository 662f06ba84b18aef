"""Which training records are held out: by content and seed, whatever order the files are in."""

from __future__ import annotations

import hashlib
from array import array
from bisect import bisect_left, bisect_right


def key_of(line: bytes, seed: int, purpose: str) -> int:
    """A number that stands for a record under a seed. Identical records share it."""
    secret, person = seed.to_bytes(8, "big"), purpose.encode()
    digest = hashlib.blake2b(line, digest_size=8, key=secret, person=person).digest()
    return int.from_bytes(digest, "big")


def held_out_up_to(keys: array[int], share: float) -> int | None:
    """The greatest key that is held out; None when one side would stay empty.

    Held out are max(1, round(share * n)) records. Identical records stay together, so the count
    is the nearest that groups of them allow.
    """
    ordered = sorted(keys)
    wanted = max(1, round(share * len(ordered)))
    if wanted > len(ordered):
        return None
    last = ordered[wanted - 1]
    below, through = _bounds(ordered, last, wanted)
    if below and (through == len(ordered) or wanted - below < through - wanted):
        return ordered[below - 1]
    return last if through < len(ordered) else None


def _bounds(ordered: list[int], key: int, position: int) -> tuple[int, int]:
    """How many keys are less than `key`, and how many are not greater."""
    return bisect_left(ordered, key), bisect_right(ordered, key, lo=position - 1)
