"""The metrics are what the libraries say, and the answers that models really give are read."""

from __future__ import annotations

import math
from typing import Any

import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sklearn import metrics as sklearn_metrics
from sklearn.metrics import accuracy_score, f1_score

from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, ModelAnswer
from cloudft.evaluate.metrics.scores import (
    HEADLINE_METRIC,
    LOWER_IS_BETTER,
    aggregate_metrics,
    confusion_matrix,
    score_record,
)
from cloudft.evaluate.metrics.tasks import Task, detect_task
from cloudft.evaluate.supervised import evaluate_supervised
from cloudft.inference import Prompt

LABELS = ("billing", "delivery", "not_delivery", "refund")
CLASSES = Task("classification", LABELS)
TRUTH = ["billing", "delivery", "refund", "refund", "billing", "not_delivery"] * 4
SAID = ["billing", "Refund.", "refund", "nonsense", "delivery", "not_delivery"] * 4
MEANT = ["billing", "refund", "refund", "?", "delivery", "not_delivery"] * 4
TEXTS = ["the cat sat on the mat", "Lyon is in France", "", "naïve café déjà vu"]
ANSWERS = ["a cat sat on a mat", "Lyon is a city in France", "something", "naive cafe deja vu"]


def scored(task: Task, references: list[str], texts: list[str]) -> dict[str, float]:
    return aggregate_metrics(task, references, texts, truncated=[False] * len(texts))


def test_classification_is_scored_as_scikit_learn_does() -> None:
    found = scored(CLASSES, TRUTH, SAID)
    there = sorted(set(TRUTH))
    assert found["accuracy"] == pytest.approx(accuracy_score(TRUTH, MEANT), abs=1e-9)
    for name in ("macro", "micro"):
        wanted = f1_score(TRUTH, MEANT, labels=there, average=name, zero_division=0)
        assert found[f"{name}F1"] == pytest.approx(wanted, abs=1e-9)
    assert found["noLabelShare"] == pytest.approx(4 / 24)
    table = confusion_matrix(LABELS, TRUTH, SAID)
    named = [m if m != "?" else "(none of them)" for m in MEANT]
    assert (
        table.matrix == sklearn_metrics.confusion_matrix(TRUTH, named, labels=table.labels).tolist()
    )


def test_text_is_scored_as_sacrebleu_and_rouge_score_do() -> None:
    found = scored(Task("text"), TEXTS, ANSWERS)
    assert found["bleu"] == pytest.approx(
        sacrebleu.corpus_bleu(ANSWERS, [TEXTS]).score / 100, abs=1e-9
    )
    assert found["chrf"] == pytest.approx(
        sacrebleu.corpus_chrf(ANSWERS, [TEXTS]).score / 100, abs=1e-9
    )
    rouge = RougeScorer(["rougeL"], use_stemmer=True)
    each = [rouge.score(r, t)["rougeL"].fmeasure for r, t in zip(TEXTS, ANSWERS, strict=True)]
    assert found["rougeL"] == pytest.approx(sum(each) / len(each), abs=1e-9)


def test_json_is_scored_by_its_fields() -> None:
    task = Task("json")
    wanted = '{"city": "Lyon", "items": [1, 2], "to": {"name": "Ada"}}'
    assert score_record(task, wanted, f"```json\n{wanted}\n```") == (1.0, True)
    half = '{"city": "Lyon", "items": [2, 3], "to": {"name": "Bob"}}'
    assert score_record(task, wanted, half) == (pytest.approx(2 * 2 / 8), False)
    assert score_record(task, wanted, "Lyon") == (0.0, False)
    found = scored(task, [wanted] * 3, [wanted, half, "{"])
    assert found["validShare"] == pytest.approx(2 / 3)
    assert found["fieldF1"] == pytest.approx(2 * 6 / (12 + 8))


def test_the_task_is_found_from_the_answers() -> None:
    assert detect_task(["a", "b"], ["a", "a", "b", "b"]) == Task("classification", ("a", "b"))
    unseen = detect_task(["a", "c"], ["a", "a", "b", "b"])
    assert unseen == Task("classification", ("a", "b", "c"))
    assert detect_task(["a", "b"], ["a", "b", "c"]).name == "text"
    assert detect_task(['{"a": 1}'], ['{"a": 2}', "[1]"]).name == "json"
    assert detect_task(["1", "2"], ["1", "2"]).name == "text"
    assert detect_task(["x"], ["x", "y"], labels=["y", "x"]) == Task("classification", ("x", "y"))
    assert detect_task(['{"a": 1}'], requested="text").name == "text"


@given(st.lists(st.tuples(st.text(max_size=30), st.text(max_size=30)), min_size=1, max_size=5))
def test_any_answers_give_finite_numbers(pairs: list[tuple[str, str]]) -> None:
    references, texts = [list(part) for part in zip(*pairs, strict=True)]
    tasks: list[tuple[Task, Any]] = [
        (Task("text"), references),
        (Task("classification", tuple({r.strip() or "x" for r in references})), references),
        (Task("json"), ['{"a": 1}'] * len(texts)),
    ]
    for task, truth in tasks:
        found = scored(task, truth, texts)
        assert HEADLINE_METRIC[task.name] in found
        assert all(math.isfinite(value) for value in found.values())
        assert all(
            -1e-9 <= value <= 1 + 1e-9 for name, value in found.items() if name != "lengthRatio"
        )
        for reference, text in zip(truth, texts, strict=True):
            assert 0 <= score_record(task, reference, text)[0] <= 1 + 1e-9
    assert not LOWER_IS_BETTER & set(HEADLINE_METRIC.values()) - {"bitsPerByte"}


def test_the_sentence_reports_the_difference_of_the_figures_beside_it() -> None:
    references = ["the parcel is in Lyon", "yes", "it was sent on a wet Monday in May", "no"]
    texts = {BASE: ["a parcel", "no", "it was lost", "yes"], TUNED: [*references[:3], "yes"]}
    items = tuple(EvalExample(r, "f", n, Prompt([]), r, r) for n, r in enumerate(references))
    said = {name: [ModelAnswer(t, 3, "stop") for t in found] for name, found in texts.items()}
    found = evaluate_supervised(
        Task("text"), HeldOutData(items, (), "test", (), (), True), said, {}
    )
    delta = found["delta"]["chrf"]
    assert delta["value"] == pytest.approx(found["tuned"]["chrf"] - found["base"]["chrf"])
    reported = f"{delta['value']:+.3f} (95 % interval {delta['low']:+.3f} to {delta['high']:+.3f})"
    assert reported in found["significance"]["sentence"]
