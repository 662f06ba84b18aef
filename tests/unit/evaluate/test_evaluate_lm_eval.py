"""Figures of lm-eval are judged by what the task states, a document being the unit."""

from __future__ import annotations

import pytest

from cloudft.evaluate.lm_eval import _compare_figure
from cloudft.inference import LmEvalMetric
from local_backend.inference.lm_eval_harness import TaskResult, compare_figures

BASE = [65.0 + n % 5 for n in range(40)]
TUNED = [51.0 + n % 7 for n in range(40)]


@pytest.mark.parametrize(
    ("higher_is_better", "verdict", "changes"),
    [
        (False, "better", "40 records fixed, 0 broken"),
        (True, "worse", "0 records fixed, 40 broken"),
        (None, "different", "0 records higher, 40 lower"),
    ],
)
def test_a_loss_that_falls_is_better_where_the_task_says_so(
    higher_is_better: bool | None, verdict: str, changes: str
) -> None:
    means = sum(BASE) / 40, sum(TUNED) / 40
    found = _compare_figure(LmEvalMetric("t", "my_loss", 40, *means, higher_is_better, BASE, TUNED))
    assert found["verdict"] == verdict and changes in found["sentence"]


def result(figures: dict[str, object], scores: dict[str, list[object]]) -> TaskResult:
    """Return lm-eval's result of one metric: a sample for each document and filter."""
    samples = [
        {"doc_id": n, "filter": name, "metrics": ["m"], "m": score}
        for name, values in scores.items()
        for n, score in reversed(list(enumerate(values)))
    ]
    return TaskResult(
        samples, {f"m,{name}": figure for name, figure in figures.items()}, {"m": True}
    )


def test_each_filter_has_a_figure_and_each_document_one_entry() -> None:
    base = result({"strict": 0.5, "flexible": 1.0}, {"strict": [0, 1], "flexible": [1, 1]})
    tuned = result({"strict": 1.0, "flexible": 0.5}, {"strict": [1, 1], "flexible": [0, 1]})
    flexible, strict = compare_figures(base, tuned)
    assert (strict["figure"], flexible["figure"]) == ("m,strict", "m,flexible")
    assert (strict["base_scores"], strict["tuned_scores"]) == ([0, 1], [1, 1])
    assert strict["records"] == flexible["records"] == 2


@pytest.mark.parametrize("scores", [[-1.0, -3.0], [(-1.0, 4), (-3.0, 5)], [0.5, float("nan")]])
def test_a_figure_that_is_no_mean_of_its_documents_has_no_scores(scores: list[object]) -> None:
    """A perplexity of lm-eval keeps log-likelihoods, of which more is better."""
    one = result({"none": 7.39}, {"none": scores})
    [figure] = compare_figures(one, one)
    assert (figure["figure"], figure["base"], figure["base_scores"]) == ("m", 7.39, [])
