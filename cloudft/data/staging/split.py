"""Choose which training records are held out: by content and seed, whatever order files have."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from numpy import bool_, integer, uint64
    from numpy.typing import NDArray


def compute_selection_keys(texts: Iterable[bytes], seed: int, purpose: str) -> Iterator[int]:
    """Yield a number below 2**64 for each text under a seed: equal for equal texts (XXH3).

    Another `purpose` gives other, independent numbers.
    """
    from xxhash import xxh3_64_intdigest as digest

    secret = digest(purpose.encode(), seed)
    return (digest(text, secret) for text in texts)


def hold_out(
    keys: NDArray[uint64], share: float, labels: NDArray[integer] | None = None
) -> NDArray[bool_] | None:
    """Return a mark for each record that is held out; None when one side would stay empty.

    Records with one key stay together: identical ones, or those of one group. Held out are the
    lowest keys, about `share` of the records, and of each label's if there are `labels`; how near
    that gets is limited by the size of groups. A group with several labels counts as its lowest.
    Takes some 60 bytes a record for a moment.
    """
    import numpy as np

    if len(keys) < 2:
        return None
    groups, inverse, sizes = np.unique(keys, return_inverse=True, return_counts=True)
    strata = np.zeros(len(groups), np.int64)
    if labels is not None:
        strata.fill(np.iinfo(np.int64).max)
        np.minimum.at(strata, inverse, labels)
    held = np.zeros(len(groups), np.bool_)
    for stratum in np.unique(strata):
        members = np.flatnonzero(strata == stratum)  # by key, as np.unique sorts
        held[members[: _count_groups(sizes[members], share)]] = True
    if held.all() or not held.any():
        # Too few of every label: one group is moved to the empty side, whatever its label.
        if len(groups) < 2:
            return None
        held[:] = held.all()
        held[0] = not held[0]
    marks: NDArray[bool_] = held[inverse]
    return marks


def _count_groups(sizes: NDArray[integer], share: float) -> int:
    """Return how many of these groups, from the first, are nearest to `share` of their records."""
    import numpy as np

    through = np.concatenate(([0], np.cumsum(sizes)))
    return int(np.argmin(np.abs(through - round(share * through[-1]))))
