"""An interval holds its figure, whatever the figure is, and shares have intervals made for them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from cloudft.evaluate import language_modeling
from cloudft.evaluate.compare import ModelResult, compare_models
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, ModelAnswer
from cloudft.evaluate.metrics import intervals
from cloudft.evaluate.metrics.intervals import (
    Z,
    bootstrap_interval,
    mean_interval,
    paired_share_interval,
    wilson_interval,
)
from cloudft.evaluate.metrics.resampled_metrics import build_f1_statistics
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.results import EvaluationScores
from cloudft.evaluate.supervised import evaluate_supervised
from cloudft.inference import Likelihood, Prompt

LABELS = ("billing", "delivery", "refund")
JSONS = ('{"a": 1, "b": [2, 3]}', '{"a": 1}', "[1, 2]")
TEXTS = ("the parcel is late in Lyon", "yes", "the parcel is in Oslo since Monday")
TASKS = (
    (Task("classification", LABELS), LABELS),
    (Task("json"), JSONS),
    (Task("text"), TEXTS),
)


def evaluate(
    task: Task, references: list[str], base: list[str], tuned: list[str]
) -> EvaluationScores:
    items = tuple(
        EvalExample(f"k{n}", "f", n, Prompt([]), "q" * n, r) for n, r in enumerate(references)
    )
    answers = {
        name: [ModelAnswer(text, 3, "stop") for text in texts]
        for name, texts in ((BASE, base), (TUNED, tuned))
    }
    likelihoods = {
        name: [Likelihood(n, name, -1.0 - len(text), 3, False) for n, text in enumerate(texts)]
        for name, texts in ((BASE, base), (TUNED, tuned))
    }
    held_out = HeldOutData(items, (), "test", (), (), True)
    return evaluate_supervised(task, held_out, answers, likelihoods)


@settings(max_examples=25, deadline=None)  # each example resamples five metrics
@given(st.data())
def test_every_interval_holds_its_figure(data: st.DataObject) -> None:
    """Draw answers of every task; check the figures of `evaluate` and of `compare`."""
    task, texts = data.draw(st.sampled_from(TASKS))
    rows = data.draw(
        st.lists(st.tuples(*[st.sampled_from([*texts, "no"])] * 3), min_size=1, max_size=12)
    )
    references, base, tuned = (list(column) for column in zip(*rows, strict=True))
    references = [r if r in texts else texts[0] for r in references]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 100)
        found = evaluate(task, references, base, tuned)
        sides = [ModelResult(name, {"job": name, **found}, name) for name in (BASE, TUNED)]
        compared = compare_models(sides)
    deltas = [*found["delta"].values(), *(part["delta"] for part in found["slices"])]
    deltas += [one["delta"] for one in compared["comparisons"]]
    figures = [(d["low"], d["value"], d["high"]) for d in deltas]
    figures += [(row["low"], row["score"], row["high"]) for row in compared["leaderboard"]]
    for low, value, high in figures:
        assert (low is None) is (high is None)
        if low is not None:
            assert math.isfinite(low + high) and low <= value <= high and low < high
    if task.name == "classification":
        accuracy = found["delta"]["accuracy"]
        assert accuracy["low"] is not None and -1 <= accuracy["low"] <= accuracy["high"] <= 1
    assert "nan" not in found["significance"]["sentence"]


documents = st.lists(
    st.tuples(st.floats(0, 900), st.floats(0, 900), st.integers(1, 3)), min_size=1, max_size=8
)


@settings(max_examples=40)
@given(documents, documents)
def test_the_intervals_of_losses_hold_their_figures(
    rows: list[tuple[float, float, int]], general: list[tuple[float, float, int]]
) -> None:
    """Bits per byte and perplexity of held-out and general text, up to what a float can hold."""
    metrics: dict[Any, dict[str, float | None]] = {BASE: {}, TUNED: {}}
    statistics: dict[Any, dict[str, Any]] = {BASE: {}, TUNED: {}}
    for prefix, table in (("", rows), ("general", general)):
        texts = ["word " * tokens for _, _, tokens in table]
        for column, name in enumerate((BASE, TUNED)):
            found = [Likelihood(0, name, -row[column], row[2], False) for row in table]
            metrics[name] |= language_modeling._text_metrics(found, texts, prefix)
            statistics[name] |= language_modeling._build_statistics(found, texts, prefix)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 50)
        deltas = language_modeling._compute_deltas(
            metrics, statistics, {"": len(rows), "general": len(general)}
        )
    assert len(deltas) == 4
    for delta in deltas.values():
        if delta["low"] is not None:
            assert delta["low"] <= delta["value"] <= delta["high"]
            assert math.isfinite(delta["low"] + delta["high"])


@given(st.integers(1, 60), st.integers(0, 60), st.integers(0, 60))
def test_the_interval_of_a_paired_difference_is_tangos(count: int, fixed: int, broken: int) -> None:
    """Each bound is the difference that the score test, with its nuisance fitted, just rejects."""
    fixed, broken = min(fixed, count), min(broken, count - min(fixed, count))
    low, high = paired_share_interval(fixed, broken, count)
    observed = (fixed - broken) / count
    assert -1 <= low <= observed <= high <= 1 and low < high
    other_low, other_high = paired_share_interval(broken, fixed, count)
    assert (other_low, other_high) == pytest.approx((-high, -low))
    for bound in (low, high):
        if abs(bound) < 1 - 1e-6:
            statistic = abs(observed - bound) / math.sqrt(
                fitted_variance(fixed, broken, count, bound)
            )
            assert statistic == pytest.approx(Z, rel=1e-3)


def fitted_variance(fixed: int, broken: int, count: int, difference: float) -> float:
    """Return the variance of the difference at the most likely discordant shares that have it."""

    def loss(share: float) -> float:
        """Return the negative log-likelihood; `share` is that of the broken records."""
        cells = (
            (fixed, share + difference),
            (broken, share),
            (
                count - fixed - broken,
                1 - 2 * share - difference,
            ),
        )
        return -sum(n * math.log(max(p, 1e-300)) for n, p in cells if n)

    lowest, highest = max(0.0, -difference), (1 - difference) / 2
    share = minimize_scalar(
        loss, bounds=(lowest, highest), method="bounded", options={"xatol": 1e-12}
    ).x
    return float(2 * share + difference - difference**2) / count


def test_all_right_is_not_certain() -> None:
    """20 of 20 right: Wilson's interval, where the bootstrap has no width."""
    assert wilson_interval(20, 20) == pytest.approx((0.839, 1.0), abs=1e-3)
    assert mean_interval([1.0] * 20) == wilson_interval(20, 20)
    assert mean_interval([0.25] * 20) is None
    low, high = paired_share_interval(20, 0, 20)
    assert (low, high) == pytest.approx(((20 - Z**2) / (20 + Z**2), 1.0))
    low, high = paired_share_interval(0, 0, 20)
    assert (low, high) == pytest.approx((-(Z**2) / (20 + Z**2), Z**2 / (20 + Z**2)))


def test_a_label_that_a_resample_did_not_draw_is_not_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """20 labels, a record each, all wrong, then all right: macro F1 rises by 1 in each resample."""
    monkeypatch.setattr(intervals, "RESAMPLES", 500)
    labels = [f"label {n:02}" for n in range(20)]
    found = evaluate(Task("classification", tuple(labels)), labels, ["?"] * 20, labels)
    delta = found["delta"]["macroF1"]
    assert delta == {"value": 1.0, "low": None, "high": None}
    half = [label if n % 2 else "?" for n, label in enumerate(labels)]
    statistic = build_f1_statistics(labels, labels, half)["macroF1"]
    assert statistic(np.array([1, 1, 3, 5])) == 1.0 and statistic(np.array([0, 2])) == 0.0
    low, high = bootstrap_interval(statistic, 20) or (0, 0)
    assert low < 0.5 < high
