"""The form of the answer: is the tuned model more than its base with its mouth held to the labels?

A base model that knows the answer may still say it in a sentence. Tuned on labels without meaning
it learns to answer with a label and looks better for it; held to the labels (the likeliest one is
its answer) the base is just as good.

What is likely is not yet what is meant: a model finds some labels likelier than others whatever is
asked. So the base is also held to them with that taken out, by batch calibration (Zhou et al. 2023,
"Batch Calibration"), and the better of the two counts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cloudft.evaluate.diagnostics.diagnostic import Diagnostic
from cloudft.evaluate.metrics.significance import BETTER, SAME, compare_paired

ALPHA = 0.05


def choose_labels(log_likelihoods: Sequence[Sequence[float]]) -> tuple[list[int], list[int]]:
    """Of each record's log-likelihoods of the labels: the label chosen, plainly and calibrated.

    Calibrated, a label's probability among the labels is taken relative to its mean over all
    records.
    """
    import numpy as np

    table = np.asarray(log_likelihoods, float)
    shares = table - np.logaddexp.reduce(table, axis=1, keepdims=True)
    usual = np.logaddexp.reduce(shares, axis=0) - np.log(len(table))
    plain, calibrated = shares.argmax(1), (shares - usual).argmax(1)
    return [int(n) for n in plain], [int(n) for n in calibrated]


def diagnose_answer_format(
    base_choices: Sequence[bool], tuned: Sequence[bool], labels: int
) -> Diagnostic:
    """The base model's choice among so many labels, against the tuned model's free answers."""
    difference = compare_paired([float(x) for x in base_choices], [float(x) for x in tuned])
    shares = [sum(x) / len(x) for x in (base_choices, tuned)]
    numbers = {
        "records": len(tuned),
        "labels": labels,
        "base": shares[0],
        "tuned": shares[1],
        "low": difference.low,
        "high": difference.high,
        "pValue": difference.p_value,
    }
    told = (
        f"held to the {labels} labels, the base model is right in {shares[0]:.0%} of"
        f" {len(tuned)} records, the tuned one in {shares[1]:.0%}"
        f" (95 % interval of the difference {difference.low:+.0%} to {difference.high:+.0%})"
    )
    if difference.delta > 0 and difference.p_value < ALPHA:
        return Diagnostic("good", f"More than the form of the answer was learned: {told}.", numbers)
    return Diagnostic(
        "bad",
        f"No improvement beyond the form of the answer: {told}. Look at the labels of the training"
        " data, or name the labels in the prompt and leave the model as it is.",
        numbers,
    )


def qualify_verdict(
    significance: Mapping[str, Any], answer_format: Mapping[str, Any]
) -> dict[str, Any]:
    """A `verdict` and its `sentence`, with the last word for what was found of the answers' form.

    `form` is the pitfall as an evaluation keeps it.
    """
    if significance["verdict"] != BETTER or answer_format["level"] == "good":
        return dict(significance)
    _, _, numbers = str(significance["sentence"]).partition(": ")
    sentence = f"{answer_format['sentence']} (By the score alone it is better: {numbers})"
    return {**significance, "verdict": SAME, "sentence": sentence}
