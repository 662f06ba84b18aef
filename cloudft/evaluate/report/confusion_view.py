"""Prepare a confusion matrix for a page: its most frequent mistakes, and its cells."""

from __future__ import annotations

from typing import NamedTuple

from cloudft.evaluate.results import Confusion

MAX_MISTAKES = 10
"""Pairs of labels that are listed."""
SHADES = 7
"""Shades of a cell; the style has a class for each, `s0` for none."""


class Mistake(NamedTuple):
    """A label that was answered for another one, and how often by each model."""

    label: str
    answer: str
    base: int
    tuned: int


class ConfusionView(NamedTuple):
    """The tuned model's matrix without empty rows and columns.

    `rows` are a label and its cells: the number of records, and a shade from 0 to `SHADES` by the
    cell's share of the row.
    """

    mistakes: list[Mistake]
    answers: list[str]
    rows: list[tuple[str, list[tuple[int, int]]]]


def view_confusion(confusion: Confusion) -> ConfusionView:
    """Return a view of both models' matrices."""
    labels, matrix = confusion["labels"], confusion["tuned"]
    used = [n for n in range(len(labels)) if any(row[n] for row in matrix)]
    rows = [
        (label, [(row[n], -(-SHADES * row[n] // sum(row))) for n in used])
        for label, row in zip(labels, matrix, strict=False)
        if any(row)
    ]
    mistakes = [
        Mistake(label, labels[n], base_row[n], count)
        for label, row, base_row in zip(labels, matrix, confusion["base"], strict=False)
        for n, count in enumerate(row)
        if count and labels[n] != label
    ]
    mistakes.sort(key=lambda mistake: -mistake.tuned)
    return ConfusionView(mistakes[:MAX_MISTAKES], [labels[n] for n in used], rows)
