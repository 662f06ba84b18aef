"""The most informative records come first, near duplicates together, a share at random."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from label_projects import LABELS, make_project, suggest, tickets, write_records

from cloudft.labeling.order import draw, is_random, rank_record
from cloudft.labeling.project import LabelProject
from cloudft.labeling.queue import LabelQueue


@pytest.fixture
def project(tmp_path: Path) -> LabelProject:
    return make_project(tmp_path, tickets(40, ""))


def test_doubtful_before_disagreeing_before_uncertain_before_certain(project: LabelProject) -> None:
    keys = project.records.keys
    given = {key: project.records.given[key][0] for key in keys}
    other = {key: next(x for x in LABELS if x != given[key]) for key in keys}

    def shares(key: str, best: float, of: str) -> list[float]:
        return [best if label == of else (1 - best) / 2 for label in LABELS]

    certain, uncertain, disagreeing, doubtful, *_ = keys
    project.save_suggestions(
        [
            suggest(project, certain, *shares(certain, 0.98, given[certain])),
            suggest(project, uncertain, *shares(uncertain, 0.4, given[uncertain])),
            suggest(
                project,
                disagreeing,
                *shares(disagreeing, 0.98, given[disagreeing]),
                base=other[disagreeing],
            ),
            suggest(project, doubtful, *shares(doubtful, 0.9, other[doubtful])),
        ]
    )
    ranked = project.order()
    first = {one.key: one.reason for one in ranked[:4]}
    assert list(first) == [doubtful, uncertain, disagreeing, certain]
    assert list(first.values()) == ["doubtful", "uncertain", "disagreement", "uncertain"]
    assert all(one.score < 0 and one.reason == "unranked" for one in ranked[4:])
    shown = {one.record.key: one.why for one in LabelQueue(project).next_records("ada", 4)}
    assert given[doubtful] in shown[doubtful] and "90%" in shown[doubtful]
    assert other[disagreeing] in shown[disagreeing]


def test_an_uncertain_record_comes_before_models_that_disagree_a_little(
    project: LabelProject,
) -> None:
    key = project.records.keys[0]
    given = project.records.given[key]
    sure = suggest(project, key, *(0.98 if x == given[0] else 0.01 for x in LABELS), base="returns")
    unsure = suggest(project, key, *(0.34 if x == given[0] else 0.33 for x in LABELS))
    scores = [rank_record(key, given, one, project.settings).score for one in (sure, unsure)]
    assert 0.5 <= scores[0] < scores[1] <= 1


def test_a_prompt_with_two_answers_comes_first(tmp_path: Path) -> None:
    records = tickets(10, "")
    twice = {**records[6], "completion": "billing"}
    assert records[6]["completion"] == "billing"
    twice["completion"] = "returns"
    project = make_project(tmp_path, [*records, twice])
    assert len(project.records.keys) == 10
    first, *_ = LabelQueue(project).next_records("ada", 1)
    assert first.reason == "contradiction" and first.record.text == twice["prompt"]
    assert "billing" in first.why and "returns" in first.why


def test_near_duplicates_come_one_after_the_other(tmp_path: Path) -> None:
    pytest.importorskip("rensa")
    text = (
        "my parcel number {} has not arrived and the courier does not answer the telephone at all"
    )
    near = [{"prompt": text.format(n), "completion": "delivery"} for n in range(3)]
    project = make_project(tmp_path, [*tickets(20, ""), *near])
    keys = project.records.keys
    project.groups.add((key, project.records.get(key).text) for key in keys)
    project.save_suggestions([suggest(project, keys[-2], 0.34, 0.33, 0.33)])
    ranked = project.order()
    assert {one.key for one in ranked[:3]} == set(keys[-3:]) and ranked[0].key == keys[-2]
    assert [one.reason for one in ranked[1:3]] == ["near", "near"]


def test_the_random_share_is_spread_evenly_and_keeps_its_records(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(300, ""), random_share=0.2)
    ranked = project.order()
    drawn = [number for number, one in enumerate(ranked) if one.reason == "random"]
    assert 35 <= len(drawn) <= 90
    gaps = {b - a for a, b in pairwise(drawn)}
    assert max(gaps) - min(gaps) <= 1
    before = {ranked[number].key for number in drawn}
    source = Path(project.settings.files[0])
    write_records(source, tickets(330, "")[300:], "a")
    assert project.add_new_records() == 30
    after = {one.key for one in project.order() if one.reason == "random"}
    assert before <= after and len(project.order()) == 330


def test_draws_are_even_and_of_the_seed(project: LabelProject) -> None:
    values = sorted(draw(project.settings, "random", f"k{n}") for n in range(4000))
    assert all(abs(value - n / 4000) < 0.04 for n, value in enumerate(values))
    assert draw(project.settings, "turn", "k") != draw(project.settings, "random", "k")


def test_the_suggestion_of_a_random_record_is_hidden(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(6, ""), random_share=1.0)
    keys = project.records.keys
    project.save_suggestions([suggest(project, key, 0.9, 0.05, 0.05) for key in keys])
    shown = LabelQueue(project).next_records("ada", 6)
    assert all(one.is_blind and one.reason == "random" for one in shown)
    assert all(is_random(project.settings, key) for key in keys)
    answers = make_project(tmp_path, tickets(6, ""), "text", kind="text", random_share=1.0)
    assert not any(one.is_blind for one in LabelQueue(answers).next_records("ada", 6))
