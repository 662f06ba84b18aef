"""The trials that Optuna keeps: continued after a kill, none repeated, none lost."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("optuna")

from cloudft.errors import BadDocument
from cloudft.sweep.pruning import Point
from cloudft.sweep.records import TrialRecord
from cloudft.sweep.space import SpaceParameter, point_key
from cloudft.sweep.study import Study

RATE = SpaceParameter(
    "learningRate", ("hyperparameters", "learningRate"), "float", 1e-5, 1e-2, True
)
RANK = SpaceParameter("local.lora.r", ("local", "lora", "r"), "int", values=(4, 8, 16))
SPACE = (RATE, RANK)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.jsonl"


def run_trials(study: Study, count: int) -> list[str]:
    """Run trials to their end; return their points."""
    points = []
    for _ in range(count):
        record = study.ask()
        points.append(point_key(record.values))
        record.outcome, record.score = "complete", float(record.values["learningRate"])
        study.end(record)
    return points


def test_a_continued_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    """One process for all trials, or one for each: the same points, none of them twice."""
    once = run_trials(Study(tmp_path / "a", SPACE, 7), 12)
    each = [run_trials(Study(tmp_path / "b", SPACE, 7), 1)[0] for _ in range(12)]
    assert each == once and len(set(once)) == 12
    assert run_trials(Study(tmp_path / "c", SPACE, 8), 12) != once


def test_a_killed_trial_is_done_again_once(path: Path) -> None:
    run_trials(Study(path, SPACE, 7), 2)
    killed = Study(path, SPACE, 7).ask()
    for _ in range(3):  # each of these processes is killed, too, before it asks
        Study(path, SPACE, 7).recover()
    study = Study(path, SPACE, 7)
    assert study.has_queue
    again = study.ask()
    assert again == killed
    again.outcome, again.score = "complete", 1.0
    study.end(again)
    assert not study.has_queue
    assert study.ask().values != killed.values
    numbers = [one.number for one in study.trials() if one.outcome != "running"]
    assert numbers == [0, 1, 2]


def test_a_trial_that_is_killed_while_it_is_done_again_is_not_lost(path: Path) -> None:
    first = Study(path, SPACE, 7).ask()
    for _ in range(3):
        study = Study(path, SPACE, 7)
        study.recover()
        assert study.ask() == first


def test_a_trial_that_ended_just_before_the_kill_is_not_done_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Study(path, SPACE, 7)
    record = study.ask()
    record.outcome, record.score = "complete", 0.5
    monkeypatch.setattr(Study, "_finish", lambda *_: None)  # killed between the two writes
    study.end(record)
    monkeypatch.undo()
    study = Study(path, SPACE, 7)
    study.recover()
    assert not study.has_queue
    assert [(one.number, one.score) for one in study.trials()] == [(0, 0.5)]


def test_a_torn_last_line_is_cut(path: Path) -> None:
    """A full disk leaves one; Optuna would append to it, and never read the file again."""
    run_trials(Study(path, SPACE, 7), 3)
    content = path.read_bytes()
    path.write_bytes(content + content.splitlines()[-1][:20])
    study = Study(path, SPACE, 7)
    run_trials(study, 1)
    assert len(Study(path, SPACE, 7).trials()) == 4


def test_a_damaged_journal_is_an_error_with_its_file(path: Path) -> None:
    path.write_bytes(b"{]\n" * 2)
    with pytest.raises(BadDocument) as caught:
        Study(path, SPACE, 7)
    assert caught.value.file == str(path) and "rm -r" in (caught.value.fix or "")


def test_a_diverged_trial_teaches_the_sampler_and_a_failed_one_does_not(path: Path) -> None:
    study = Study(path, SPACE, 7)
    for outcome in ("diverged", "failed", "pruned"):
        record = study.ask()
        record.outcome, record.points = outcome, [Point(8, 0.5, 2.0)]  # type: ignore[assignment]
        study.end(record)
    states = [trial.state.name for trial in study._study.trials]
    assert states == ["PRUNED", "FAIL", "PRUNED"]
    # Without a value it is the worst of all that were stopped.
    assert [trial.intermediate_values for trial in study._study.trials] == [{}, {}, {8: 2.0}]


def test_what_is_kept_beside_the_trials_is_read_back(path: Path) -> None:
    study = Study(path, SPACE, 7)
    study.keep_own(TrialRecord(-1, {"learningRate": 0.5}, 7, "complete", 1.5))
    study.keep_repeat(TrialRecord(3, {"learningRate": 0.5}, 8, "complete", 1.25))
    again = Study(path, SPACE, 7)
    own = again.own()
    assert own is not None and own.score == 1.5
    assert [(one.number, one.seed, one.score) for one in again.repeats()] == [(3, 8, 1.25)]


def test_points_of_a_finite_space_are_drawn_until_there_is_none_left(path: Path) -> None:
    study = Study(path, (RANK,), 7)
    seen = set()
    while (unseen := study.draw_unseen()) is not None:
        study.enqueue(unseen)
        seen.update(run_trials_of(study))
    assert seen == {4, 8, 16} and study.is_exhausted()


def run_trials_of(study: Study) -> list[object]:
    record = study.ask()
    record.outcome, record.score = "complete", 1.0
    study.end(record)
    return [record.values["local.lora.r"]]


def test_fractions_have_few_digits_and_stay_in_their_range(tmp_path: Path) -> None:
    narrow = SpaceParameter("x", ("x",), "float", 1.0001, 1.0002)
    study = Study(tmp_path / "s", (narrow, RATE), 7)
    for _ in range(5):
        values = study.ask().values
        assert 1.0001 <= float(values["x"]) <= 1.0002
        assert len(f"{values['learningRate']:g}".split("e")[0].replace(".", "").lstrip("0")) <= 3
