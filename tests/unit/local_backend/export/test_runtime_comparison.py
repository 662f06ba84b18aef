"""What two runtimes make of a record, compared layer by layer."""

from __future__ import annotations

from typing import Any

import pytest

from local_backend.export import runtime_comparison as comparison
from local_backend.export.runtime_comparison import RuntimeRecord, find_difference

TOLERANCE = comparison.TOLERANCE["float32"]


def record(**changes: Any) -> RuntimeRecord:
    made: RuntimeRecord = {
        "prompt": [1, 5, 6, 7],
        "plain": [1, 5, 6, 7],
        "answer": [8, 9],
        "text": "In Lyon.",
        "finish": "stop",
        "scores": [-1.0, -2.0],
    }
    return made | changes  # type: ignore[typeddict-item, return-value]


@pytest.mark.parametrize(
    ("changes", "layer", "detail"),
    [
        ({"prompt": [1, 5, 7]}, "template", "token 2 is 6 here and 7 there (4 and 3 tokens)"),
        (
            {"prompt": [1, 5, 7, 7], "plain": [1, 5, 7, 7]},
            "tokenizer",
            "token 2 is 6 here and 7 there (4 and 4 tokens)",
        ),
        # One begin token more in plain text is how tokenizers are; in the prompt it is a fault.
        ({"prompt": [1, 1, 5, 6, 7], "plain": [1, 1, 5, 6, 7]}, "template", "token 1 is 5 here"),
        ({"scores": [-1.0, -2.1]}, "logits", "the log-probability of token 2 differs by 0.1"),
        ({"scores": [-1.0, float("nan")]}, "logits", "differs by inf"),
        ({"answer": [8, 9, 3], "finish": "length"}, "end tokens", "goes on there"),
        ({"answer": [8]}, "end tokens", "an answer ends there after 1 tokens and goes on here"),
        ({"finish": "length"}, "end tokens", "ends by `stop` here and by `length` there"),
        ({"answer": [8, 4]}, "decoding", "token 1 is 9 here and 4 there"),
        # What follows from a wrong prompt is not counted.
        ({"prompt": [2], "scores": [-9.0, -9.0], "answer": [4]}, "template", "token 0"),
    ],
)
def test_the_first_layer_that_differs_is_named(
    changes: dict[str, Any], layer: str, detail: str
) -> None:
    found = find_difference([record(), record()], [record(), record(**changes)], TOLERANCE)
    assert found is not None
    assert (found.layer, found.record) == (layer, 1)
    assert detail in found.detail


def test_equal_records_and_a_begin_token_in_plain_text_alone_are_no_difference() -> None:
    assert find_difference([record()], [record()], TOLERANCE) is None
    assert find_difference([record()], [record(plain=[1, 1, 5, 6, 7])], TOLERANCE) is None
    assert find_difference([record()], [record(scores=[-1.001, -2.001])], TOLERANCE) is None


def test_quantized_weights_may_answer_otherwise_but_end_by_the_same_tokens() -> None:
    other = record(answer=[4, 4, 4], scores=[-3.0, -0.1], finish="length")
    assert find_difference([record()], [other], None) is None
    endless = record(answer=[8, 9, 9], finish="length")
    found = find_difference([record()], [endless], None)
    assert found is not None and found.layer == "end tokens"
    wrong = find_difference([record()], [record(prompt=[1])], None)
    assert wrong is not None and wrong.layer == "template"
