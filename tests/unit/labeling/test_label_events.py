"""The last event of a record counts, an undo takes one back, one that is sent twice counts once."""

from __future__ import annotations

from pathlib import Path

from label_projects import event

from cloudft.labeling.events import EventFile, fold_events


def test_the_last_label_of_a_record_counts() -> None:
    labels = fold_events([event("k", "a"), event("j", "b"), event("k", "c")])
    assert {key: one.label for key, one in labels.decided.items()} == {"k": "c", "j": "b"}
    assert labels.last_key == "k"


def test_an_undo_brings_back_what_was_before() -> None:
    events = [event("k", "a"), event("k", "b"), event("k", action="undo")]
    assert fold_events(events).decided["k"].label == "a"
    labels = fold_events([*events, event("k", action="undo")])
    assert labels.decided == {} and labels.last_key is None
    assert fold_events([event("k", action="undo")]).decided == {}


def test_an_undo_takes_back_the_last_event_of_its_record() -> None:
    events = [event("k", "a"), event("j", "b"), event("k", "c"), event("j", action="undo")]
    labels = fold_events(events)
    assert {key: one.label for key, one in labels.decided.items()} == {"k": "c"}
    assert labels.last_key == "k"


def test_a_skip_decides_nothing() -> None:
    labels = fold_events([event("k", action="skip"), event("j", action="reject")])
    assert list(labels.decided) == ["j"] and labels.seconds == [2.0]


def test_an_event_that_is_sent_twice_counts_once(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "labels-ada.jsonl")
    first, second = event("k", "a"), event("k", "b")
    undo = event("k", action="undo")
    for one in (first, second, undo, undo, second):
        file.append(one)
    assert file.labels.decided["k"].label == "a"
    assert EventFile(file.path).refresh().decided["k"].label == "a"


def test_torn_and_foreign_lines_are_left_out(tmp_path: Path) -> None:
    file = EventFile(tmp_path / "labels-ada.jsonl")
    file.append(event("k", "a"))
    with file.path.open("ab") as raw:
        raw.write(b'[1]\n{"id": "x", "key": "k", "action": "fly"}\n{"id": "y", "key": "k", "act')
    file.append(event("j", "b"))
    assert set(EventFile(file.path).refresh().decided) == {"k", "j"}
