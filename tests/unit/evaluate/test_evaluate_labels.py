"""An answer means the label that it names, whatever the labels are; no other answer means one."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloudft.evaluate.metrics.labels import extract_label
from cloudft.evaluate.metrics.scores import (
    NO_LABEL,
    aggregate_metrics,
    confusion_matrix,
    score_record,
)
from cloudft.evaluate.metrics.tasks import Task, detect_task

LABELS = ("billing", "delivery", "not_delivery", "refund")
MARKS = "\"'`*.,;:!?()[]"


def nfc(text: str) -> str:
    return unicodedata.normalize("NFC", text)


def reduced(text: str) -> str:
    """Return all of a text that could matter, by the loosest comparison there may be."""
    folded = nfc(nfc(text).casefold())
    while (shorter := " ".join(folded.split()).strip(MARKS)) != folded:
        folded = shorter
    return folded


pieces = st.sampled_from(
    ["a", "A", "é", "e\u0301", "ß", "ss", ":)", ":(", "?", ".", " ", "not", "-"]
)
label_texts = st.one_of(
    st.text(min_size=1, max_size=8), st.lists(pieces, min_size=1, max_size=4).map("".join)
).map(lambda text: nfc(text).strip())
label_sets = st.lists(label_texts.filter(bool), min_size=1, max_size=6, unique=True)
decorated = st.sampled_from(["{}", " {}\n", "{}.", "**{}**", '"{}"', "({})", "Label: {}"])


@given(label_sets, st.data())
@example([":)", ":("], None)
def test_accuracy_is_that_of_the_intended_labels(labels: list[str], data: st.DataObject) -> None:
    """Each answer is a label in either form of Unicode: nothing is gained or lost by comparing."""
    task = Task("classification", tuple(sorted(labels)))
    intended = [*labels, *reversed(labels)]
    references = [labels[n % len(labels)] for n in range(len(intended))]
    form = data.draw(st.sampled_from(["NFC", "NFD"])) if data else "NFC"
    answers = [unicodedata.normalize(form, label) for label in intended]
    found = aggregate_metrics(task, references, answers, truncated=[False] * len(answers))
    plain = [a == b for a, b in zip(references, intended, strict=True)]
    assert found["accuracy"] == pytest.approx(sum(plain) / len(plain))
    assert [score_record(task, r, t)[1] for r, t in zip(references, answers, strict=True)] == plain
    matrix = confusion_matrix(task.labels, references, answers).matrix
    assert sum(matrix[n][n] for n in range(len(labels))) == sum(plain)


@given(label_sets, st.one_of(st.text(max_size=12), label_texts), decorated)
@example([":)", ":("], "?!", "{}")
@example([":)", ":("], "", "{}")
@example(["5"], ".5", "{}")
@example(["US", "us"], "Us", "{}")
@example([":A", "A:"], "A", "{}")
@example([":(:"], ":(", "{}")
def test_what_is_no_label_is_never_right(labels: list[str], text: str, frame: str) -> None:
    """An answer can only mean a label that it equals by the loosest of all comparisons."""
    answer = frame.format(text)
    label = extract_label(answer, labels)
    lines = [line for line in answer.splitlines() if line.strip()] or [""]
    bare = {reduced(part) for part in (answer, lines[0], lines[0].partition(":")[2])}
    if label is not None:
        assert reduced(label) in bare or nfc(label) == nfc(answer).strip()
        others = [other for other in labels if reduced(other) == reduced(label) != ""]
        assert others == [label] or nfc(label) in nfc(answer)
    reference = labels[0]
    assert score_record(Task("classification", tuple(labels)), reference, answer)[1] == (
        label == reference
    )


@given(label_sets, decorated)
def test_marks_around_a_label_are_no_part_of_it(labels: list[str], frame: str) -> None:
    alike = {reduced(label) for label in labels}
    if len(alike) == len(labels) and "" not in alike:
        for label in labels:
            one_line = "\n" not in label and len(label.splitlines()) == 1
            if reduced(label) == label and one_line:
                assert extract_label(frame.format(label), labels) == label


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("billing", "billing"),
        (' "Billing". \n', "billing"),
        ("The answer is refund.", "refund"),
        ("**Answer:** refund", "refund"),
        ("Final answer: [refund]", "refund"),
        ("not_delivery", "not_delivery"),
        ("It is not_delivery", "not_delivery"),
        ("billing\n\nThe customer paid twice.", "billing"),
        ("billing\nbilling", "billing"),
        ("billing\nrefund", None),
        ("not the delivery", None),
        ("The answer is not delivery", None),
        ("delivery is not what this is", None),
        ("billing or refund", None),
        ("billings", None),
        ("Sure!\nbilling", None),
        ("", None),
        ("\n\t ", None),
        ("?!", None),
        ("b\u0131lling", None),
    ],
)
def test_an_answer_means_one_label_or_none(text: str, label: str | None) -> None:
    assert extract_label(text, LABELS) == label


def test_a_label_named_like_no_label_is_a_label() -> None:
    labels = (NO_LABEL, "billing")
    table = confusion_matrix(labels, [NO_LABEL, "billing"], [NO_LABEL, "nonsense"])
    assert len(set(table.labels)) == 3
    assert table.matrix == [[1, 0, 0], [0, 0, 1], [0, 0, 0]]


def test_labels_in_two_forms_of_unicode_are_one() -> None:
    composed, decomposed = "café", unicodedata.normalize("NFD", "café")
    task = detect_task([composed, "thé"], [decomposed, "thé", composed, "thé"])
    assert task == Task("classification", (composed, "thé"))
    assert score_record(task, decomposed, composed) == (1.0, True)
    assert score_record(Task("json"), f'["{composed}"]', f'["{decomposed}"]') == (1.0, True)
    assert score_record(Task("text"), composed, decomposed) == (1.0, True)


def test_a_reference_outside_the_listed_labels_is_a_label_of_its_own() -> None:
    task = detect_task(["yes", "perhaps", "No"], labels=["yes", "no"])
    assert task.labels == ("no", "perhaps", "yes")
    assert score_record(task, "perhaps", "perhaps")[1] and not score_record(task, "perhaps", "?")[1]
    assert not score_record(Task("classification", ("yes", "no")), "perhaps", "nonsense")[1]
