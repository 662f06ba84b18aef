"""Over all records, what a bootstrap computes is what the libraries say."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.evaluate.metrics.resampled_metrics import (
    build_additive_metrics,
    build_corpus_statistics,
    build_f1_statistics,
    build_ratio_statistic,
)
from cloudft.evaluate.metrics.scores import aggregate_metrics
from cloudft.evaluate.metrics.tasks import Task

LABELS = ("billing", "delivery", "refund")
words = st.sampled_from(["billing", "delivery.", "a refund", "REFUND", "nothing", "", "billing"])
some_words = st.lists(st.sampled_from(["a", "parcel", "is", "late", "in", "Lyon", "."]))
sentences = some_words.map(" ".join)
jsons = st.sampled_from(['{"a": 1, "b": [2, 3]}', '{"a": 1}', "[1, 2]", "no", '{"b": [3, 2]}'])


@settings(deadline=None)  # the first example loads the libraries
@given(st.lists(st.tuples(st.sampled_from(LABELS), words), min_size=1, max_size=20))
def test_labels(pairs: list[tuple[str, str]]) -> None:
    references, texts = map(list, zip(*pairs, strict=True))
    check(Task("classification", LABELS), references, texts)


@settings(deadline=None)  # the first example loads the libraries
@given(st.lists(st.tuples(st.sampled_from(['{"a": 1}', "[1, 2, 3]"]), jsons), min_size=1))
def test_json(pairs: list[tuple[str, str]]) -> None:
    references, texts = map(list, zip(*pairs, strict=True))
    check(Task("json"), references, texts)


def test_text() -> None:
    check(Task("text"), ["the parcel is in Lyon", "yes"], ["The parcel was in Lyon", "no"])


@settings(deadline=None)  # the first example loads the libraries
@given(st.lists(st.tuples(sentences, sentences), min_size=1, max_size=8), st.randoms())
def test_corpus_scores(pairs: list[tuple[str, str]], draw: random.Random) -> None:
    references, texts = map(list, zip(*pairs, strict=True))
    places = [draw.randrange(len(texts)) for _ in texts]
    drawn = [references[n] for n in places], [texts[n] for n in places]
    expected = aggregate_metrics(Task("text"), *drawn, truncated=[False] * len(texts))
    for name, statistic in build_corpus_statistics(references, texts).items():
        assert statistic(np.array(places)) == pytest.approx(expected[name], abs=1e-9), name


def check(task: Task, references: list[str], texts: list[str]) -> None:
    expected = aggregate_metrics(task, references, texts, truncated=[False] * len(texts))
    everything = np.arange(len(texts))
    found = {
        name: build_ratio_statistic(*sums)
        for name, sums in build_additive_metrics(task, references, texts).items()
    }
    if task.labels:
        found |= build_f1_statistics(task.labels, references, texts)
    assert found.keys() <= expected.keys() and len(found) >= 3
    for name, statistic in found.items():
        assert statistic(everything) == pytest.approx(expected[name], abs=1e-9), name
    once = build_f1_statistics(LABELS, ["billing", "refund"], ["billing", "x"])["macroF1"]
    assert once(np.array([0, 0])) == 1.0  # a label that was not drawn is not wrong
