"""Name metrics for people. JSON keeps the names of the contract."""

from __future__ import annotations

import re

METRIC_LABELS = {
    "bitsPerByte": "bits per byte",
    "bleu": "BLEU",
    "chrf": "chrF",
    "cutShare": "answers cut off",
    "emptyShare": "empty answers",
    "exactMatch": "exact match",
    "fieldF1": "field F1",
    "lengthRatio": "length ratio",
    "macroF1": "macro F1",
    "microF1": "micro F1",
    "noLabelShare": "answers without a label",
    "referenceLoss": "loss of the reference",
    "refusalShare": "refusals",
    "rouge1": "ROUGE-1",
    "rouge2": "ROUGE-2",
    "rougeL": "ROUGE-L",
    "validShare": "valid JSON answers",
}
"""Name in JSON -> name for people. Shares are of all answers, from 0 to 1."""


DIAGNOSTIC_LABELS = {
    "data": "more data",
    "form": "answer format",
    "memorised": "memorization",
}
"""Name of a diagnostic in JSON -> name for people."""


def diagnostic_label(name: str) -> str:
    """Return the name of a diagnostic for people: `form` -> `answer format`."""
    return DIAGNOSTIC_LABELS.get(name, name)


def metric_label(name: str) -> str:
    """Return the name of a metric for people: `noLabelShare` -> `answers without a label`."""
    return METRIC_LABELS.get(name) or re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
