"""A metric that means nothing for the data is left out with its reason; what is right scores 1.

The public reports that a test names are kinds of reports in those projects' trackers, tried here.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.cli.commands.evaluate import evaluation_text
from cloudft.errors import UsageError
from cloudft.evaluate.held_out import EvalExample, HeldOutData
from cloudft.evaluate.inference.cached_inference import BASE, TUNED, UNKNOWN_FINISH, ModelAnswer
from cloudft.evaluate.inference.external_answers import load_external_answers
from cloudft.evaluate.metrics import intervals
from cloudft.evaluate.metrics.applicability import find_meaningless_metrics
from cloudft.evaluate.metrics.scores import aggregate_metrics, score_record
from cloudft.evaluate.metrics.tasks import Task
from cloudft.evaluate.results import EvaluationScores
from cloudft.evaluate.supervised import evaluate_supervised
from cloudft.inference import Prompt

TEXT = Task("text")
SIMILARITY = {"bleu", "rouge1", "rouge2", "rougeL"}


def evaluate(
    references: list[str], tuned: list[str], tokens: int = 3, finish: str = "stop"
) -> EvaluationScores:
    items = tuple(
        EvalExample(f"k{n}", "f", n, Prompt([]), "q", r) for n, r in enumerate(references)
    )
    answers = {
        BASE: [ModelAnswer("nothing of it", tokens, finish) for _ in references],
        TUNED: [ModelAnswer(text, tokens, finish) for text in tuned],
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(intervals, "RESAMPLES", 50)
        return evaluate_supervised(TEXT, HeldOutData(items, (), "test", (), (), True), answers, {})


def test_bleu_of_one_word_references_is_left_out() -> None:
    """sacrebleu and evaluate: "BLEU is 0 although the prediction equals the reference".

    Corpus BLEU counts sequences of four words, and one-word references have none.
    """
    words = ["Lyon", "Oslo", "Bern", "Rome"]
    found = evaluate(words, words)
    assert SIMILARITY & set(found["tuned"]) == {"rouge1", "rougeL"}
    assert set(found["tuned"]) == set(found["base"]) == set(found["delta"])
    assert found["tuned"]["rouge1"] == found["tuned"]["chrf"] == 1.0
    assert {one["metric"] for one in found["omitted"]} == {"bleu", "rouge2"}
    text = evaluation_text({"job": "j", "pitfalls": {}, **found})
    assert "BLEU" in text and "left out: answers equal to these references would score 0.00" in text
    mostly = find_meaningless_metrics(TEXT, [*words, "the parcel is in Lyon"])
    assert "4 of 5 references have fewer" in mostly["bleu"]
    assert not find_meaningless_metrics(TEXT, ["the parcel is in Lyon"] * 3)


@pytest.mark.parametrize(
    "sentence",
    [
        "包裹已经在里昂的仓库里等着",
        "Посылка уже третий день лежит в Лионе",
        "الطرد موجود في مدينة ليون",
    ],
)
def test_rouge_of_other_scripts_is_left_out(sentence: str) -> None:
    """rouge-score and evaluate: "ROUGE is 0 for Chinese (Russian, Arabic) texts".

    Its tokenizer keeps a to z and 0 to 9 alone; equal texts score 0, or by their digits.
    """
    reasons = find_meaningless_metrics(TEXT, [f"{sentence} 24"] * 3)
    assert {"rouge1", "rouge2", "rougeL"} <= set(reasons)
    assert "letters a to z" in reasons["rougeL"]
    assert score_record(TEXT, sentence, sentence) == (1.0, True)


def test_equal_strings_in_two_unicode_forms_are_equal() -> None:
    """lm-eval and evaluate: "exact_match is False for visually identical strings" (NFC and NFD)."""
    found = aggregate_metrics(
        TEXT,
        ["Où est le café de Zoë ?"],
        ["Ou\u0300 est le cafe\u0301 de Zoe\u0308 ?"],
        truncated=[False],
    )
    for name in ("exactMatch", "chrf", "bleu", "rougeL"):
        assert found[name] == pytest.approx(1.0), name


@settings(max_examples=50)
@given(st.lists(st.text(max_size=25), min_size=1, max_size=4))
def test_answers_equal_to_their_references_have_full_scores(references: list[str]) -> None:
    """Whatever the references are: a metric that is shown is 1 when every answer is right."""
    found = aggregate_metrics(TEXT, references, references, truncated=[False] * len(references))
    shown = {"exactMatch", *SIMILARITY} - set(find_meaningless_metrics(TEXT, references))
    assert {name: found[name] for name in shown} == pytest.approx(dict.fromkeys(shown, 1.0))
    assert all(score_record(TEXT, r, r) == (1.0, True) for r in references)


def test_what_answers_of_another_tool_leave_unknown_is_left_out() -> None:
    found = evaluate(["the parcel is in Lyon"], ["the parcel"], tokens=0, finish=UNKNOWN_FINISH)
    assert {one["metric"] for one in found["omitted"]} == {"answerTokens", "cutShare"}
    empty = evaluate([""], ["something"])
    assert "lengthRatio" in {one["metric"] for one in empty["omitted"]}


def test_a_number_of_tokens_that_is_none_is_an_error_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"base": "a", "tuned": {"text": "b", "tokens": "many"}}\n')
    with pytest.raises(UsageError, match="no number of tokens: 'many'") as error:
        load_external_answers(path, 1)
    assert (error.value.line, error.value.field) == (1, "tuned.tokens")
