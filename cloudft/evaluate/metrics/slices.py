"""Where the tuned model gains and where it loses: by label, and by the length of what is asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from cloudft.evaluate.metrics.significance import compare_paired

MIN_SLICE_RECORDS = 5
"""Records that a slice must have to be told."""


def compute_slices(
    labels: Sequence[str | None],
    lengths: Sequence[int],
    base: Sequence[float],
    tuned: Sequence[float],
) -> list[dict[str, Any]]:
    """Each slice of enough records: its means and the difference, with a 95 % interval.

    `labels` and `lengths` (characters) are the records', `base` and `tuned` their scores.
    """
    found = []
    for by, groups in (("label", _group_by_label(labels)), ("length", _group_by_length(lengths))):
        for value, places in groups.items():
            if len(places) >= MIN_SLICE_RECORDS:
                found.append(
                    {
                        "by": by,
                        "value": value,
                        **_slice_to_json([base[i] for i in places], [tuned[i] for i in places]),
                    }
                )
    return found


def _slice_to_json(base: Sequence[float], tuned: Sequence[float]) -> dict[str, Any]:
    difference = compare_paired(base, tuned)
    return {
        "n": len(base),
        "base": sum(base) / len(base),
        "tuned": sum(tuned) / len(tuned),
        "delta": {
            "value": difference.delta,
            "low": difference.low,
            "high": difference.high,
        },
    }


def _group_by_label(labels: Sequence[str | None]) -> Mapping[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for place, label in enumerate(labels):
        if label is not None:
            groups.setdefault(label, []).append(place)
    return dict(sorted(groups.items()))


def _group_by_length(lengths: Sequence[int]) -> Mapping[str, list[int]]:
    """The shortest, the middle and the longest third; one group when all are alike."""
    ordered = sorted(lengths)
    low, high = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
    if low == high:
        return {}
    parts: Iterator[tuple[str, Callable[[int], bool]]] = iter(
        (
            (f"up to {low} characters", lambda size: size <= low),
            (f"{low + 1} to {high}", lambda size: low < size <= high),
            (f"over {high}", lambda size: size > high),
        )
    )
    return {
        name: [place for place, size in enumerate(lengths) if inside(size)]
        for name, inside in parts
    }
