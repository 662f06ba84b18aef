"""Each pitfall on curves and answers that have it, and on some that have not."""

from __future__ import annotations

import collections
import dataclasses

import pytest

from cloudft.evaluate.diagnostics import general_knowledge
from cloudft.evaluate.diagnostics.answer_format import choose_labels, diagnose_answer_format
from cloudft.evaluate.diagnostics.consistency import diagnose_consistency, shuffle_options
from cloudft.evaluate.diagnostics.data_scaling import diagnose_data_scaling
from cloudft.evaluate.diagnostics.forgetting import GeneralResults, diagnose_forgetting
from cloudft.evaluate.diagnostics.memorization import diagnose_memorization
from cloudft.evaluate.diagnostics.overfitting import diagnose_overfitting
from cloudft.evaluate.metrics.cloze import find_cloze_gaps
from cloudft.inference import Likelihood
from cloudft.types import Metric, Split


def curve(split: Split, losses: list[float]) -> list[Metric]:
    return [
        Metric(10 * e + 9, e, split, loss, 1.0, None, None, "") for e, loss in enumerate(losses)
    ]


@pytest.mark.parametrize(
    ("validation", "level"),
    [
        ([1.0, 0.6, 0.5, 0.48], "good"),
        ([1.0, 0.6, 0.7, 0.5, 0.49], "good"),
        ([1.0, 0.50, 0.51, 0.51], "good"),
        ([1.0, 0.5, 0.52, 0.55], "warning"),
        ([1.0, 0.5, 0.7, 0.9, 1.2], "bad"),
    ],
)
def test_over_fitting_is_a_rise_that_stays(validation: list[float], level: str) -> None:
    train = curve("train", [1 / (2**n) for n in range(len(validation))])
    found = diagnose_overfitting([*train, *curve("validation", validation)])
    assert found is not None and found.level == level
    best = validation.index(min(validation)) + 1
    assert found.numbers["bestEpoch"] == best
    assert f"epoch {best}" in found.sentence


def test_one_validation_reports_nothing() -> None:
    assert diagnose_overfitting(curve("train", [1, 0.5]) + curve("validation", [1.0])) is None
    rewarded = [dataclasses.replace(p, reward=-p.loss) for p in curve("validation", [-0.5, -0.4])]
    assert diagnose_overfitting(rewarded) is None


def likely(losses: list[float]) -> list[Likelihood]:
    return [Likelihood(i, "base", -loss, 100, False) for i, loss in enumerate(losses)]


def test_forgetting_comes_with_a_share_to_mix_in() -> None:
    losses = [200.0 + n for n in range(24)]
    sizes, correct = [400] * 24, [True] * 30 + [False] * 10
    base = GeneralResults(likely(losses), correct)

    def tuned(factor: float, answers: list[bool] = correct) -> GeneralResults:
        return GeneralResults(likely([loss * factor for loss in losses]), answers)

    same = diagnose_forgetting(base, tuned(1.01), sizes)
    assert same.level == "good" and same.numbers["suggestedShare"] is None
    some = diagnose_forgetting(base, tuned(1.05), sizes)
    assert some.level == "warning" and some.numbers["suggestedShare"] == pytest.approx(0.1)
    much = diagnose_forgetting(base, tuned(1.3, [False] * 40), sizes, mixed_share=0.3)
    assert much.level == "bad" and much.numbers["suggestedShare"] == pytest.approx(0.4)
    assert "share: 0.4" in much.sentence and "+30.0%" in much.sentence


def test_memorizing_is_what_comes_back_of_training_alone() -> None:
    long = [
        f"The parcel number {n} was sent to the harbour of Lyon on a wet Monday." for n in range(20)
    ]
    back = [(text, text) for text in long]
    new = [(text, "It is somewhere else.") for text in long]
    found = diagnose_memorization(back, new)
    assert found is not None and found.level == "bad" and found.numbers["trainShare"] == 1.0
    both = diagnose_memorization(back, back)
    assert both is not None and both.level == "good"
    assert (
        diagnose_memorization([("billing", "billing")] * 50, [("billing", "billing")] * 50) is None
    )


def test_a_base_model_that_favors_a_label_is_held_to_what_it_reports_beside_that() -> None:
    truth = [n % 3 for n in range(60)]
    favor = [0.0, -30.0, -60.0]  # the first label is likeliest, whatever is asked
    reported = [[favor[k] + 2.0 * (k == t) for k in range(3)] for t in truth]
    plain, calibrated = choose_labels(reported)
    assert plain == [0] * 60 and calibrated == truth
    tuned = [n % 2 == 0 for n in range(60)]
    shown = [
        sum(map(bool, right))
        for right in ([a == b for a, b in zip(plain, truth, strict=True)], tuned)
    ]
    assert shown == [20, 30]  # held to the labels plainly, the base would look worse
    by_heart = diagnose_answer_format(
        [a == b for a, b in zip(calibrated, truth, strict=True)], tuned, 3
    )
    assert by_heart.level == "bad" and "right in 100% of 60" in by_heart.sentence
    assert diagnose_answer_format([False] * 60, tuned, 3).level == "good"


def test_the_learning_curve_says_what_twice_the_data_buys() -> None:
    def points(floor: float, height: float) -> list[tuple[int, float]]:
        return [(n, floor + height * (n / 100) ** -0.5) for n in (50, 100, 200, 400)]

    steep = diagnose_data_scaling(points(0.1, 1.0))
    assert steep.level == "warning"  # good data, of which there could be more
    assert steep.numbers["lossAtTwice"] == pytest.approx(0.1 + 8**-0.5, abs=0.02)
    assert diagnose_data_scaling(points(1.0, 0.001)).level == "good"
    rising = diagnose_data_scaling([(50, 0.4), (100, 0.5), (200, 0.6)])
    assert rising.level == "good" and rising.numbers["lossAtTwice"] <= 0.6
    assert "at least three runs" in diagnose_data_scaling([(50, 0.4), (100, 0.3)]).sentence


def test_options_are_put_in_other_orders() -> None:
    labels = ["billing", "login", "lost parcel"]
    requested = "Choose billing, login or lost parcel for: I paid twice."
    found = shuffle_options(requested, labels, 7, 4)
    assert found[0] == requested and len(set(found)) == len(found) == 4
    for text in found:
        assert text.startswith("Choose ") and text.endswith(" for: I paid twice.")
        assert all(text.count(label) == 1 for label in labels)
    assert shuffle_options("I paid twice", labels, 7, 4) == []
    assert shuffle_options("billing, login", labels[:2], 7, 4) == []


def test_consistency_is_agreement_and_entropy() -> None:
    found = diagnose_consistency(
        {"sampled": [["a", "A", "b", "b"], ["c"] * 4], "options": [["x"]]}, str.lower
    )
    numbers = found.numbers["sampled"]
    assert numbers["agreement"] == pytest.approx((2 / 6 + 1) / 2)
    assert numbers["entropyBits"] == pytest.approx(0.5)
    assert "options" not in found.numbers and found.level == "bad"
    assert diagnose_consistency({}, str.lower).level == "good"


def test_the_general_data_is_whole() -> None:
    texts, questions = (
        general_knowledge.load_default_texts(),
        general_knowledge.load_default_questions(),
    )
    assert len(set(texts)) == len(texts) >= 20 and all(200 < len(t) < 900 for t in texts)
    assert len({q.question for q in questions}) == len(questions) >= 40
    places = collections.Counter(q.answer for q in questions)
    assert set(places) == {0, 1, 2, 3} and max(places.values()) <= len(questions) / 3
    assert all(len(set(q.options)) == 4 for q in questions)


def test_the_cloze_requires_what_stands_in_the_domain_alone() -> None:
    sentence = "Every parcel of the harbour company gets a mooringtag before the people may leave. "
    found = find_cloze_gaps(
        [sentence * 4, sentence * 2], ["The people of the company may leave. " * 20]
    )
    terms = {gap.text.strip() for gap in found}
    assert "mooringtag" in terms and not terms & {"people", "company"}
    assert max(sum(g.text == f" {t}" for g in found) for t in terms) <= 3
    one = next(gap for gap in found if gap.text == " mooringtag")
    assert (one.prompt.text or "").endswith("company gets a")
    assert find_cloze_gaps(["short"], ["short"]) == []
