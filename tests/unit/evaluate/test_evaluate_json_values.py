"""JSON answers are compared as values, not as text."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudft.evaluate.metrics.json_values import freeze_answer
from cloudft.evaluate.metrics.scores import aggregate_metrics, score_record
from cloudft.evaluate.metrics.tasks import Task

JSON = Task("json")
leaves = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 3),
    st.floats(-2, 2),
    st.text("ae\u0301é/*", max_size=3),
)
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text("ab/*", max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize(
    ("reference", "answer", "equal"),
    [
        ("100", "100.0", True),
        ("100", "1e2", True),
        ("0.1", "0.10", True),
        ("0", "-0.0", True),
        ("1", "true", False),
        ("0", "false", False),
        ("0", "null", False),
        ("100", '"100"', False),
        ('"100"', '"100.0"', False),
        ("18446744073709551616", "18446744073709551617", False),
        ("0.1", "0.1000000000000000055511151231257827", False),
        ("[]", "{}", False),
        ('{"a": 1, "b": 2}', '{"b": 2, "a": 1}', True),
        ('{"a/b": 1}', '{"a": {"b": 1}}', False),
        ('{"*": 1}', "[1]", False),
    ],
)
def test_values_are_compared_with_their_types(reference: str, answer: str, equal: bool) -> None:
    """A field counts as right exactly when the whole answer is."""
    expected, actual = (f'{{"value": {text}}}' for text in (reference, answer))
    assert score_record(JSON, expected, actual) == (float(equal), equal)
    found = aggregate_metrics(JSON, [expected], [actual], truncated=[False])
    assert (found["fieldF1"], found["exactMatch"]) == (float(equal), float(equal))
    assert (freeze_answer(expected) == freeze_answer(actual)) is equal


def written(value: Any, draw: Any) -> str:
    """Return a JSON text of a value, with its keys and numbers written in some other way."""
    if isinstance(value, dict):
        items = draw(st.permutations(sorted(value.items())))
        return "{" + ", ".join(f"{json.dumps(k)}: {written(v, draw)}" for k, v in items) + "}"
    if isinstance(value, list):
        return "[" + ",".join(written(v, draw) for v in value) + "]"
    if isinstance(value, int) and not isinstance(value, bool):
        return draw(st.sampled_from([str(value), f"{value}.0", f"{value}e0", f"{10 * value}E-1"]))
    return json.dumps(value, ensure_ascii=draw(st.booleans()))


@given(st.lists(values, max_size=4), st.data())
def test_another_spelling_is_the_same_answer(value: list[Any], data: st.DataObject) -> None:
    reference, answer = json.dumps(value), written(value, data.draw)
    assert score_record(JSON, reference, answer) == (1.0, True)


@given(st.lists(values, max_size=4), st.text(max_size=20))
@example([1], "[" * 5000)
@example([1], "[" * 500 + "]" * 500)
@example([1], "[1e99999999999999999999]")
@example([1], "[" + "9" * 5000 + "]")
@example([1], "[NaN]")
@example([1], '["\\ud800"]')
def test_any_answer_is_scored(value: list[Any], answer: str) -> None:
    score, correct = score_record(JSON, json.dumps(value), answer)
    assert 0 <= score <= 1 and (score == 1 or not correct)
