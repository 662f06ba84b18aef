"""Find hashes that repeat among many: in Python among few, with numpy among many.

Importing numpy takes longer than the whole check of a small file.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from numpy import integer, uint64
    from numpy.typing import NDArray

SMALL = 20_000
"""Hashes up to which numpy is not worth its import."""
MIX = 0x9E3779B97F4A7C15
"""An odd number that spreads what it is multiplied with over 64 bits (from the golden ratio)."""
MIN_MARKS = 1 << 16
MARKS_PER_WANTED = 16


class Repeats(NamedTuple):
    """Records that repeat, by number in ascending order, each with the record that came first."""

    records: Sequence[int]
    firsts: Sequence[int]


class RecordRepeats(NamedTuple):
    """The records with prompt and answer of an earlier one, and those with its prompt alone.

    These have another answer than the first record with that prompt.
    """

    same: Repeats
    differing: Repeats


def find_repeats(prompts: array[int], answers: array[int]) -> RecordRepeats:
    """Compare records by the hashes of their prompts and answers."""
    if len(prompts) > SMALL:
        return _find_repeats_large(prompts, answers)
    same, differing = Repeats([], []), Repeats([], [])
    firsts: dict[int, int] = {}
    records: dict[tuple[int, int], int] = {}
    for index, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        first = firsts.setdefault(prompt, index)
        if first == index:
            continue
        if answers[first] != answer:
            _append(differing, index, first)
            first = records.setdefault((prompt, answer), index)
        if first != index:
            _append(same, index, first)
    return RecordRepeats(same, differing)


def _append(repeats: Repeats, record: int, first: int) -> None:
    assert isinstance(repeats.records, list) and isinstance(repeats.firsts, list)
    repeats.records.append(record)
    repeats.firsts.append(first)


def _find_repeats_large(prompts: array[int], answers: array[int]) -> RecordRepeats:
    import numpy as np

    keys, values = np.frombuffer(prompts, np.uint64), np.frombuffer(answers, np.uint64)
    halves = np.sort(keys.astype(np.uint32))  # faster than whole hashes, and enough for most data
    members = _find_candidates(keys, halves[1:][halves[1:] == halves[:-1]])
    keys, values = keys[members], values[members]
    first = _first_of_each(keys)
    first_record = _first_of_each(keys ^ (values * np.uint64(MIX)))
    differs, is_same = values != values[first], first_record != np.arange(len(members))
    return RecordRepeats(
        Repeats(members[is_same].tolist(), members[first_record[is_same]].tolist()),
        Repeats(members[differs].tolist(), members[first[differs]].tolist()),
    )


def _first_of_each(keys: NDArray[uint64]) -> NDArray[integer]:
    """Return for each key the index where it occurs first."""
    import numpy as np

    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    found: NDArray[integer] = first[inverse]
    return found


def find_common(keys: array[int], wanted: array[int]) -> Repeats:
    """Return which of the `wanted` hashes are among `keys`, and where each is first."""
    firsts = _first_positions(keys, wanted)
    records = [index for index, key in enumerate(wanted) if key in firsts]
    return Repeats(records, [firsts[wanted[index]] for index in records])


def _first_positions(keys: array[int], wanted: array[int]) -> Mapping[int, int]:
    """Return the first index in `keys` of each hash that is wanted."""
    positions: Iterable[int] = range(len(keys))
    if len(keys) > SMALL:
        import numpy as np

        hashes = (np.frombuffer(each, np.uint64) for each in (keys, wanted))
        positions = _find_candidates(*hashes).tolist()
    known, firsts = set(wanted), dict[int, int]()
    for index in positions:
        if keys[index] in known:
            firsts.setdefault(keys[index], index)
    return firsts


def _find_candidates(keys: NDArray[uint64], wanted: NDArray[Any]) -> NDArray[integer]:
    """Return in ascending order where keys end like wanted ones: all of these, and a few others."""
    import numpy as np

    size = max(MIN_MARKS, 1 << (MARKS_PER_WANTED * len(wanted)).bit_length())
    marks = np.zeros(size, np.bool_)
    marks[wanted.astype(np.uint64) & np.uint64(size - 1)] = True
    return np.flatnonzero(marks[keys & np.uint64(size - 1)])
