"""A project is made, grows with its files, is labeled by several people, and is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from label_projects import LABELS, event, make_project, suggest, tickets, write_records

from cloudft.data.findings import Findings
from cloudft.data.records import read_records
from cloudft.data.sources.source_files import SourceResolver
from cloudft.errors import CheckFailed, UsageError
from cloudft.evaluate.human_review.agreement import nominal_alpha
from cloudft.labeling.decided import decide_records
from cloudft.labeling.export import choose_format, export_labels, provenance_path
from cloudft.labeling.outlook import estimate_outlook, load_curve, predict_gain
from cloudft.labeling.project import create_project, list_projects, open_project
from cloudft.labeling.queue import LabelQueue
from cloudft.labeling.settings import ProjectSettings
from cloudft.labeling.summary import IDLE_GAP_S, measure_cost, summarize_project
from cloudft.storage.home import Home

LABELED = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


@pytest.mark.parametrize(
    ("record", "text", "given"),
    [
        ({"prompt": "q", "completion": "a"}, "q", "a"),
        ({"prompt": "q", "completion": ""}, "q", None),
        ({"prompt": "q", "completion": None}, "q", None),
        ({"prompt": "q"}, "q", None),
        ({"text": "q"}, "q", None),
        (LABELED, "q", "a"),
        ({"messages": LABELED["messages"][:1]}, "q", None),
        ({"messages": LABELED["messages"][:1], "reference_answer": "a"}, "q", "a"),
        ({"messages": [*LABELED["messages"], {"role": "user", "content": "r"}]}, "q\na\nr", None),
    ],
)
def test_records_with_and_without_answers_are_read(
    tmp_path: Path, record: dict[str, Any], text: str, given: str | None
) -> None:
    project = make_project(tmp_path, [record])
    found = project.records.get(project.records.keys[0])
    assert (found.text, found.given) == (text, given)


def test_columns_name_what_is_read(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    file.write_text("question,team\nfirst,billing\nsecond,\n")
    columns = {"prompt": "question", "completion": "team"}
    settings = ProjectSettings("csv", (str(file),), "labels", LABELS, columns)
    project = create_project(tmp_path, settings)
    records = [project.records.get(key) for key in project.records.keys]
    assert [(one.text, one.given) for one in records] == [("first", "billing"), ("second", None)]


def test_what_cannot_be_a_project_is_refused(tmp_path: Path) -> None:
    pair = {"prompt": "q", "chosen": "a", "rejected": "b"}
    for records, settings, error in (
        ([{"prompt": "q", "completion": "only one"}], {"labels": ()}, UsageError),
        ([{"prompt": "q"}], {"labels": ()}, UsageError),
        ([{"prompt": "q"}], {"kind": "check"}, UsageError),
        ([], {}, CheckFailed),
        ([pair], {}, CheckFailed),
        ([{"no": {"such": "format"}}], {}, CheckFailed),
        ([{"prompt": "q"}], {"labels": ("x" * 500, "y")}, UsageError),
    ):
        with pytest.raises(error) as raised:
            make_project(tmp_path, records, **settings)
        assert raised.value.message
    for name in ("", "..", "a/b", "x" * 64, ".hidden"):
        with pytest.raises(UsageError):
            open_project(tmp_path / "labels", name)
    assert list_projects(tmp_path / "labels") == []
    make_project(tmp_path, tickets(3, ""))
    with pytest.raises(UsageError, match="already"):
        make_project(tmp_path, tickets(3, ""))


def test_the_labels_are_those_of_the_data(tmp_path: Path) -> None:
    assert make_project(tmp_path, tickets(9, ""), labels=()).settings.labels == LABELS


def test_a_file_that_is_appended_to_or_removed_costs_no_label(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(6, ""))
    first = project.records.keys[0]
    project.save_event("ada", event(first, "billing"))
    source = Path(project.settings.files[0])
    lines = source.read_text().splitlines(True)
    source.write_text("".join([*tickets_lines(8)[6:], *reversed(lines[1:])]))  # moved, one is gone
    again = open_project(tmp_path / "labels", "tickets")
    assert again.add_new_records() == 2 and again.add_new_records() == 0
    source.unlink()
    again = open_project(tmp_path / "labels", "tickets")
    assert len(again.records.keys) == 8
    assert again.labels_of("ada").decided[first].label == "billing"
    assert again.records.get(first).given == "billing"


def tickets_lines(count: int) -> list[str]:
    return [json.dumps(one) + "\n" for one in tickets(count, "")]


def test_each_record_goes_to_one_person_and_a_shared_one_to_all(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(60, ""), overlap_share=0.3)
    queue = LabelQueue(project)
    seen: dict[str, list[str]] = {"ada": [], "bob": []}
    while any(
        batch := {name: queue.next_records(name, 2, seen[name][-1:]) for name in seen}
    ) and any(batch.values()):
        for name, records in batch.items():
            for one in records[:1]:
                seen[name].append(one.record.key)
                project.save_event(name, event(one.record.key, "billing"))
    assert len(seen["ada"]) == len(set(seen["ada"])) and len(seen["bob"]) == len(set(seen["bob"]))
    both = set(seen["ada"]) & set(seen["bob"])
    assert set(seen["ada"]) | set(seen["bob"]) == set(project.records.keys)
    assert 8 <= len(both) <= 30
    summary = summarize_project(project)
    assert summary["sharedRecords"] == len(both) and summary["agreement"] == 1.0
    assert (summary["decided"], summary["remaining"], summary["open"]) == (60, 0, 0)


def test_a_skipped_record_comes_again_at_the_end(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(3, ""))
    queue = LabelQueue(project)
    first, second, _ = (one.record.key for one in queue.next_records("ada", 3))
    project.save_event("ada", event(first, action="skip"))
    keys = [one.record.key for one in queue.next_records("ada", 3)]
    assert keys[0] == second and keys[-1] == first


def test_disagreements_are_open_until_they_are_settled(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(4, ""), overlap_share=1.0)
    split, most, same, rejected = project.records.keys
    for key, said in ((split, "bd"), (most, "bbd"), (same, "dd"), (rejected, "xx")):
        for person, letter in zip(("ada", "bob", "eve"), said, strict=False):
            label = {"b": "billing", "d": "delivery"}.get(letter, "")
            project.save_event(person, event(key, label, "label" if label else "reject"))
    decided, still_open = decide_records(project)
    assert {one.key: (one.label, one.how) for one in decided} == {
        most: ("billing", "majority"),
        same: ("delivery", "unanimous"),
        rejected: (None, "unanimous"),
    }
    assert [one.key for one in still_open] == [split]
    project.save_decision(event(split, "returns", person="eve"))
    again = open_project(tmp_path / "labels", "tickets")
    decided, still_open = decide_records(again)
    assert not still_open and {one.key: one.label for one in decided}[split] == "returns"
    again.save_event("ada", event(split, "billing", at="2999-01-01T00:00:00+00:00"))
    assert [one.key for one in decide_records(again)[1]] == [split]


@pytest.mark.parametrize(
    ("values", "alpha"),
    [
        ({}, None),
        ({"ada": {}}, None),
        ({"ada": {"k": "x"}, "bob": {"j": "y"}}, None),
        ({"ada": {"k": "x"}, "bob": {"k": "x"}}, 1.0),
        ({"ada": {"k": "x", "j": "z"}, "bob": {"k": "x"}}, 1.0),
        ({"ada": {"k": "x", "j": "y"}, "bob": {"k": "x", "j": "y"}}, 1.0),
    ],
)
def test_agreement_at_its_edges(values: dict[str, dict[str, str]], alpha: float | None) -> None:
    assert nominal_alpha(values) == alpha


def test_agreement_of_many_labels_is_that_of_the_formula() -> None:
    ada = dict(enumerate("xxyyzzwwxy"))
    bob = dict(enumerate("xxyyzzwwyx"))
    values = {
        name: {str(n): label for n, label in labels.items()}
        for name, labels in (("ada", ada), ("bob", bob))
    }
    counts = {label: sum(x == label for x in [*ada.values(), *bob.values()]) for label in "xyzw"}
    expected = 1 - sum(n * (20 - n) for n in counts.values()) / (20 * 19)
    disagreed = 2 / 10
    alpha = nominal_alpha(values)
    assert alpha is not None and abs(alpha - (1 - disagreed / (1 - expected))) < 1e-9


def test_time_is_counted_without_idle_gaps() -> None:
    assert measure_cost([]) == {"labels": 0, "medianSeconds": None, "totalSeconds": 0}
    assert measure_cost([2, 4, 3]) == {"labels": 3, "medianSeconds": 3, "totalSeconds": 9}
    assert measure_cost([2, 4, 5000]) == {"labels": 3, "medianSeconds": 3, "totalSeconds": 9}
    assert measure_cost([5000])["totalSeconds"] == IDLE_GAP_S


def test_only_records_drawn_at_random_estimate_how_often_suggestions_are_right(
    tmp_path: Path,
) -> None:
    project = make_project(tmp_path, tickets(200, "billing"), random_share=0.2)
    keys = project.records.keys
    project.save_suggestions([suggest(project, key, 0.6, 0.3, 0.1) for key in keys])
    drawn = {one.key for one in project.order() if one.reason == "random"}
    for number, key in enumerate(sorted(drawn)):
        project.save_event("ada", event(key, "billing" if number % 4 else "returns"))
    for key in sorted(set(keys) - drawn)[:50]:
        project.save_event("ada", event(key, "delivery"))
    summary = summarize_project(project)
    for share in (summary["suggestionsRight"], summary["answersRight"]):
        assert share["records"] == len(drawn) and 0.7 < (share["share"] or 0) < 0.8
        assert (share["low"] or 1) < 0.75 < (share["high"] or 0)


@pytest.mark.parametrize("record", [{"prompt": "q"}, {"text": "q"}, LABELED], ids=str)
@pytest.mark.parametrize("target", [None, "messages", "converse", "prompt-completion"])
def test_an_export_is_read_as_a_jobs_data(
    tmp_path: Path, record: dict[str, Any], target: str | None
) -> None:
    project = make_project(tmp_path, [record, *tickets(3, "")])
    for key in project.records.keys[:3]:
        seen = suggest(project, key, 0.2, 0.7, 0.1)
        project.save_suggestions([seen])
        given = {"suggestion": seen.text, "confidence": 0.7, "model": seen.model}
        project.save_event("ada", event(key, "delivery", **given))
    project.save_event("ada", event(project.records.keys[3], action="reject"))
    target = choose_format(project, Home(tmp_path), target)
    done = export_labels(project, tmp_path / "out.jsonl", target)
    assert (done.records, done.rejected, done.open) == (3, 1, 0)
    findings = Findings()
    sources = SourceResolver(tmp_path, findings).resolve("FILE", ["out.jsonl"])
    found = list(read_records(sources, findings, {}, target=target))
    assert findings.all() == ()
    assert [one.record.answer for one in found] == ["delivery"] * 3  # type: ignore[union-attr]
    beside = [orjson.loads(line) for line in provenance_path(done.out).read_bytes().splitlines()]
    assert len(beside) == 3 and beside[0]["labels"][0]["person"] == "ada"
    assert beside[0]["labels"][0]["suggestion"] == "delivery"
    assert beside[0]["labels"][0]["confidence"] == 0.7
    with pytest.raises(UsageError, match="exists already"):
        export_labels(project, done.out, target)


def test_an_export_overwrites_nothing_and_leaves_nothing_behind(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(2, ""))
    out = tmp_path / "out" / "labeled.jsonl"
    out.parent.mkdir()
    with pytest.raises(UsageError, match="no record"):
        export_labels(project, out, "messages")
    project.save_event("ada", event(project.records.keys[0], "billing"))
    provenance_path(out).write_text("mine")
    with pytest.raises(UsageError, match="exists already"):
        export_labels(project, out, "messages")
    assert [path.name for path in out.parent.iterdir()] == ["labeled.provenance.jsonl"]
    export_labels(project, out, "messages", inside=True)
    value = orjson.loads(out.read_bytes())
    assert value["label_provenance"]["label"] == "billing"
    assert provenance_path(out).read_text() == "mine"


def test_a_chat_of_several_turns_is_labeled_and_written(tmp_path: Path) -> None:
    turns = [{"role": role, "content": f"{n}"} for n, role in enumerate(["user", "assistant"] * 2)]
    project = make_project(tmp_path, [{"messages": turns[:3]}])
    project.save_event("ada", event(project.records.keys[0], "billing"))
    out = tmp_path / "out.jsonl"
    export_labels(project, out, choose_format(project, Home(tmp_path)))
    contents = [turn["content"] for turn in orjson.loads(out.read_bytes())["messages"]]
    assert contents == ["0", "1", "2", "billing"]
    with pytest.raises(UsageError, match="turns"):
        export_labels(project, tmp_path / "other.jsonl", "prompt-completion")


def test_the_gain_of_more_labels_follows_the_curve(tmp_path: Path) -> None:
    points = [(n, 0.5 + 4 * n**-0.5) for n in (50, 100, 200, 400)]
    expected, low, high = predict_gain(points, 400)
    assert abs(expected - (0.5 + 4 * 800**-0.5)) < 0.01
    assert low <= expected <= high < points[-1][1] and high - low < 0.05
    noisy = [(50, 1.1), (100, 0.8), (200, 0.9), (400, 0.7)]
    _, low, high = predict_gain(noisy, 400)
    assert high - low > 0.02 and high <= 0.7
    assert load_curve({"points": [{"records": "many"}]}) == [] and load_curve(None) == []
    project = make_project(tmp_path, tickets(2, ""))
    outlook = estimate_outlook(project, Home(tmp_path), 3.0)
    assert not outlook["known"] and outlook["command"] is None
    lost = make_project(tmp_path, tickets(2, ""), "lost", job="gone-20260101")
    outlook = estimate_outlook(lost, Home(tmp_path), 3.0)
    assert not outlook["known"] and "gone-20260101" in outlook["reason"]


def test_a_source_that_cannot_be_read_again_keeps_its_records(tmp_path: Path) -> None:
    project = make_project(tmp_path, tickets(2, ""))
    write_records(Path(project.settings.files[0]), [{"no": {"such": "format"}}], "a")
    with pytest.raises(CheckFailed):
        project.add_new_records()
    assert len(project.records.keys) == 2
