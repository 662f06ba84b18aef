"""Diagnose the answer format: does the tuned model beat its base when the base must use a label?

A base model that knows the answer may still give it in a sentence. Tuned on meaningless labels, a
model learns to answer with a label and therefore scores higher. When the base is restricted to the
labels (its answer is the most likely one), it is just as good.

The most likely label is not always the intended one: a model prefers some labels whatever the
prompt is. So the base is also restricted with that preference removed, by batch calibration (Zhou
et al. 2023, "Batch Calibration"), and the better of the two results counts.
"""

from __future__ import annotations

from collections.abc import Sequence

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic
from cloudft.evaluate.metrics.significance import ALPHA, BETTER, SAME, compare_paired
from cloudft.evaluate.results import DiagnosticResult, Significance


def choose_labels(log_likelihoods: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
    """Return each record's most likely label, plain and calibrated, as label numbers.

    `log_likelihoods` has a row for each record and a column for each label. Calibrated, a label's
    probability among the labels is divided by its mean over all records.
    """
    import numpy as np

    table = np.asarray(log_likelihoods, float)
    # Log-probabilities among the labels: each row sums to 1.
    normalized = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
    prior = np.logaddexp.reduce(normalized, axis=0) - np.log(len(table))
    plain, calibrated = normalized.argmax(1), (normalized - prior).argmax(1)
    return [int(n) for n in plain], [int(n) for n in calibrated]


def diagnose_answer_format(
    base_choices: Sequence[bool], tuned: Sequence[bool], labels: int
) -> Diagnostic:
    """Compare the base model's choices among the labels with the tuned model's free answers.

    Both are given as correct or not, record by record; `labels` is the number of labels.
    """
    difference = compare_paired([float(x) for x in base_choices], [float(x) for x in tuned])
    assert difference.interval is not None  # shares always have one
    low, high = difference.interval
    base_share, tuned_share = (sum(x) / len(x) for x in (base_choices, tuned))
    numbers = {
        "records": len(tuned),
        "labels": labels,
        "base": base_share,
        "tuned": tuned_share,
        "low": low,
        "high": high,
        "pValue": difference.p_value,
    }
    figures = (
        f"restricted to the {labels} labels, the base model is right in {base_share:.0%} of"
        f" {len(tuned)} records, the tuned one in {tuned_share:.0%}"
        f" (95 % interval of the difference {low:+.0%} to {high:+.0%})"
    )
    if difference.delta > 0 and difference.p_value < ALPHA:
        sentence = f"The tuned model learned more than the answer format: {figures}."
        return Diagnostic("good", sentence, numbers)
    return Diagnostic(
        "bad",
        f"No improvement beyond the answer format: {figures}. Check the labels of the training"
        " data, or list the labels in the prompt and use the base model.",
        numbers,
    )


def qualify_verdict(significance: Significance, answer_format: DiagnosticResult) -> Significance:
    """Return the verdict, changed to `no difference` when only the answer format was learned.

    `answer_format` is the diagnostic as an evaluation saves it.
    """
    if significance["verdict"] != BETTER or answer_format["level"] == "good":
        return significance
    _, _, numbers = significance["sentence"].partition(": ")
    sentence = f"{answer_format['sentence']} (By the score alone it is better: {numbers})"
    return {**significance, "verdict": SAME, "sentence": sentence}
