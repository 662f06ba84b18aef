"""Show where the tuned model gains and where it loses: by label, and by the prompt's length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cloudft.evaluate.metrics.significance import compare_paired
from cloudft.evaluate.results import Slice, make_delta

MIN_SLICE_RECORDS = 5
"""Smaller slices are left out."""


def compute_slices(
    labels: Sequence[str | None],
    lengths: Sequence[int],
    base: Sequence[float],
    tuned: Sequence[float],
) -> list[Slice]:
    """Return the means of each slice with enough records, and the difference with its interval.

    `labels` and `lengths` (in characters) belong to the records, `base` and `tuned` are their
    scores.
    """
    slices = []
    for by, groups in (("label", _group_by_label(labels)), ("length", _group_by_length(lengths))):
        for value, indices in groups.items():
            if len(indices) >= MIN_SLICE_RECORDS:
                scores = [base[i] for i in indices], [tuned[i] for i in indices]
                slices.append(_slice_to_json(by, value, *scores))
    return slices


def _slice_to_json(by: str, value: str, base: Sequence[float], tuned: Sequence[float]) -> Slice:
    difference = compare_paired(base, tuned)
    return {
        "by": by,
        "value": value,
        "n": len(base),
        "base": sum(base) / len(base),
        "tuned": sum(tuned) / len(tuned),
        "delta": make_delta(difference.delta, difference.interval),
    }


def _group_by_label(labels: Sequence[str | None]) -> Mapping[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for index, label in enumerate(labels):
        if label is not None:
            groups.setdefault(label, []).append(index)
    return dict(sorted(groups.items()))


def _group_by_length(lengths: Sequence[int]) -> Mapping[str, list[int]]:
    """Return the shortest, the middle and the longest third; nothing when all are equally long."""
    ordered = sorted(lengths)
    low, high = ordered[len(ordered) // 3], ordered[2 * len(ordered) // 3]
    if low == high:
        return {}
    groups: dict[str, list[int]] = {
        f"up to {low} characters": [],
        f"{low + 1} to {high}": [],
        f"over {high}": [],
    }
    short, middle, long = groups.values()
    for index, size in enumerate(lengths):
        (short if size <= low else middle if size <= high else long).append(index)
    return groups
