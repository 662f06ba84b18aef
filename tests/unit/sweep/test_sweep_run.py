"""The order of a sweep's runs, with trainings that end at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("optuna")

from cloudft.backends.base import StagedJob
from cloudft.backends.local.backend import LocalBackend
from cloudft.errors import JobFailed, JobStateConflict
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.sweep import run as sweep_run
from cloudft.sweep.folder import SweepFolder, list_sweeps, sweep_id
from cloudft.sweep.plan import plan_sweep, trials_at_once
from cloudft.sweep.pruning import Point
from cloudft.sweep.records import TrialRecord
from cloudft.sweep.result import SweepResult
from cloudft.sweep.run import Sweep, SweepEvents
from cloudft.sweep.trial_job import TrialFactory
from cloudft.types import Manifest, StagedFile

JOB = """
name: router
base_model: smollm2-135m
data: {train: a.jsonl, validation: b.jsonl}
hyperparameters: {learningRate: OWN, epochCount: 2, batchSize: 4}
local: {lora: {r: 8}}
sweep:
  parallel_trials: 1
  space:
    learningRate: SPACE
    local.lora.r: [4, 8]
"""
RANGE = "{low: 1e-5, high: 1e-2, log: true}"


def make_factory(folder: Path, options: str = "", *, own: str = "1e-4", space: str = RANGE) -> Any:
    """Return the factory and the folder of a sweep, and its backend."""
    text = JOB if "parallel_trials" not in options else JOB.replace("  parallel_trials: 1\n", "")
    (folder / "cloudft.yaml").write_text(
        text.replace("OWN", own).replace("SPACE", space) + f"  {options}\n"
    )
    job = load_job(folder / "cloudft.yaml")
    file = StagedFile(8, 80, 20, "train.jsonl", "0" * 64, 80)
    files = {"train": file, "validation": file}
    manifest = Manifest("1" * 64, "FINE_TUNING", "converse", 7, files, (), "")
    home = Home(folder / "home")
    backend = LocalBackend(home)
    factory, sweep_folder = plan_sweep(StagedJob(job, manifest, folder), backend, home)
    return factory, sweep_folder, backend


class Trainings:
    """Stands for TrialRun: scores follow from the values, by `score`."""

    def __init__(
        self,
        score: Callable[[TrialRecord], float | str],
        polls: Callable[[TrialRecord], int] = lambda _: 1,
    ) -> None:
        """Set how trainings end, and after how many polls."""
        self.score, self.polls = score, polls
        self.started, self.stopped = list[TrialRecord](), 0
        self.at_once, self.running = 0, 0

    def make(self, *arguments: Any, **options: Any) -> Any:
        record: TrialRecord = arguments[3]
        ending: Any = [None]
        left = [self.polls(record)]

        def start() -> None:
            self.started.append(record)
            record.job = f"router-{len(self.started):08x}"
            self.running += 1
            self.at_once = max(self.at_once, self.running)
            options["on_start"](record)

        def poll(running: int) -> bool:
            left[0] -= 1
            if left[0]:
                return False
            ending[0] = train(running)
            self.running -= 1
            return True

        def train(running: int) -> Any:
            score = self.score(record)
            record.seconds = 60.0 / running
            if isinstance(score, str):
                return score, None
            record.points = [Point(8, 0.5, score + 0.1)]
            reason = options["on_point"](record)
            if reason is not None:
                return reason, None
            record.points.append(Point(16, 1.0, score))
            return "complete", score

        def end() -> None:
            record.outcome, record.score = ending[0]

        return SimpleNamespace(
            start=start, poll=poll, end=end, stop=self.count_stop, poll_seconds=0.0
        )

    def count_stop(self) -> None:
        self.stopped += 1


def by_rate(record: TrialRecord) -> float:
    """Return a score that is best at a learning rate of 1e-3."""
    rate = float(record.values["learningRate"])
    return 1.0 + abs(rate - 1e-3) * 100 + (record.seed - 7) * 0.01


def start(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    trainings: Trainings,
    options: str = "trials: 8",
    **more: Any,
) -> Sweep:
    factory, sweep_folder, backend = make_factory(folder, options, **more)
    monkeypatch.setattr(sweep_run, "TrialRun", trainings.make)
    sweep_folder.path.mkdir(parents=True, exist_ok=True)
    parallel = trials_at_once(factory)
    spec = factory.staged.job.spec.sweep
    return Sweep(
        factory, backend, backend.home, sweep_folder, spec, SweepEvents(), parallel=parallel
    )


def numbers(result: SweepResult) -> list[int]:
    return [one.number for one in result.trials]


def test_own_values_come_first_and_the_best_are_repeated_with_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(by_rate)
    result = start(tmp_path, monkeypatch, trainings, "trials: 8\n  pruning: false").run()
    first = trainings.started[0]
    assert first.values["learningRate"] == 1e-4 and result.own == first.number == 0
    assert numbers(result) == list(range(8)) and result.status == "finished"
    best = min(result.trials, key=lambda one: one.score or 9)
    assert result.best == best.number and result.verdict.is_clear
    repeated = {one.number for one in result.repeated}
    assert {0, best.number} < repeated and len(repeated) == 3
    assert {one.seed for one in result.repeats} == {8, 9} and len(result.repeats) == 6
    assert result.changes.keys() <= {"hyperparameters.learningRate", "local.lora.r"}
    assert result.changes["hyperparameters.learningRate"] == best.values["learningRate"]


@pytest.mark.parametrize("at", [0, 3, 9])
def test_an_interrupted_sweep_does_each_run_once_more_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """At its own values, in the search, and while the best are repeated."""
    options = "trials: 6\n  pruning: false"
    whole = Trainings(by_rate)
    (tmp_path / "whole").mkdir()
    expected = start(tmp_path / "whole", monkeypatch, whole, options).run()

    def interrupted(record: TrialRecord) -> float:
        if len(broken.started) == at + 1:
            raise KeyboardInterrupt
        return by_rate(record)

    broken = Trainings(interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, monkeypatch, broken, options).run()
    assert broken.stopped == 1
    rest = Trainings(by_rate)
    result = start(tmp_path, monkeypatch, rest, options).run()

    def runs(trainings: Trainings) -> list[tuple[Mapping[str, object], int]]:
        return [(one.values, one.seed) for one in trainings.started]

    assert runs(broken)[:at] + runs(rest) == runs(whole)
    assert runs(broken)[at] == runs(rest)[0]
    found = [(one.number, one.score) for one in result.trials]
    assert found == [(one.number, one.score) for one in expected.trials]


TWO = "trials: 12\n  seeds: 1\n  parallel_trials: 2"


@pytest.mark.parametrize("slow", [0, 1])
def test_two_at_once_choose_the_same_whichever_is_faster(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slow: int
) -> None:
    (tmp_path / "equal").mkdir()
    equal = Trainings(by_rate)
    expected = start(tmp_path / "equal", monkeypatch, equal, TWO).run()
    trainings = Trainings(by_rate, lambda record: 1 + 4 * (record.number % 2 == slow))
    result = start(tmp_path, monkeypatch, trainings, TWO).run()
    assert trainings.at_once == equal.at_once == 2

    def endings(of: SweepResult) -> list[object]:
        runs = (*of.trials, *of.repeats)
        return [(one.number, one.values, one.seed, one.outcome, one.score) for one in runs]

    assert endings(result) == endings(expected)
    assert any(one.outcome == "pruned" for one in result.trials)
    assert len(result.repeats) == 3 and numbers(result) == list(range(12))


@pytest.mark.parametrize("at", [0, 1, 4, 11])
def test_two_that_are_interrupted_are_both_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    (tmp_path / "whole").mkdir()
    expected = start(tmp_path / "whole", monkeypatch, Trainings(by_rate), TWO).run()

    def interrupted(record: TrialRecord) -> float:
        if record.number == at:
            raise KeyboardInterrupt
        return by_rate(record)

    broken = Trainings(interrupted)
    with pytest.raises(KeyboardInterrupt):
        start(tmp_path, monkeypatch, broken, TWO).run()
    assert broken.stopped >= 1
    rest = Trainings(by_rate)
    result = start(tmp_path, monkeypatch, rest, TWO).run()
    found = [(one.number, one.values, one.outcome, one.score) for one in result.trials]
    assert found == [(o.number, o.values, o.outcome, o.score) for o in expected.trials]
    assert [one.score for one in result.repeats] == [one.score for one in expected.repeats]
    twice = {one.number for one in broken.started} & {
        one.number for one in rest.started if one.seed == 7
    }
    assert len(twice) <= 2 and at in twice


def test_a_budget_counts_the_time_of_two_at_once_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(by_rate)
    options = "trials: 30\n  pruning: false\n  seeds: 0\n  budget_minutes: 3\n  parallel_trials: 2"
    result = start(tmp_path, monkeypatch, trainings, options).run()
    assert result.status == "out of time" and 6 <= len(result.trials) <= 7
    assert result.seconds <= 3.5 * 60


def test_two_at_once_end_when_the_own_values_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(
        lambda record: "failed" if record.number == 0 else 1.0, lambda r: 1 + r.number
    )
    with pytest.raises(JobFailed, match="own values"):
        start(tmp_path, monkeypatch, trainings, TWO).run()
    assert trainings.stopped == 1, "the other is not left running"


def test_two_at_once_try_a_small_space_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values that are chosen again while they are trained wait for that score, or are trained."""
    options = "trials: 50\n  pruning: false\n  seeds: 0\n  parallel_trials: 2"
    trainings = Trainings(by_rate)
    result = start(tmp_path, monkeypatch, trainings, options, space="[1e-4, 1e-3, 1e-2]").run()
    tried = [tuple(one.values.values()) for one in trainings.started]
    assert len(tried) == len(set(tried)) == 6 and result.status == "finished"
    assert all(one.outcome == "complete" for one in result.trials)


def test_a_finished_sweep_trains_nothing_and_more_trials_continue_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = start(tmp_path, monkeypatch, Trainings(by_rate), "trials: 4").run()
    again = Trainings(by_rate)
    assert start(tmp_path, monkeypatch, again, "trials: 4").run().to_json()["trials"] == [
        one.to_json() for one in result.trials
    ]
    assert again.started == []
    more = Trainings(by_rate)
    assert start(tmp_path, monkeypatch, more, "trials: 6").run().id == result.id
    points = [one.values for one in more.started if one.seed == 7]
    assert len(points) == 2
    assert all(one not in [t.values for t in result.trials] for one in points)


def test_own_values_outside_the_space_are_trained_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(by_rate)
    result = start(tmp_path, monkeypatch, trainings, "trials: 4", own="0.5").run()
    assert result.own == -1 and trainings.started[0].values["learningRate"] == 0.5
    assert numbers(result) == [-1, 0, 1, 2]
    again = Trainings(by_rate)
    start(tmp_path, monkeypatch, again, "trials: 4", own="0.5").run()
    assert again.started == []


def test_a_small_space_is_tried_once_and_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(by_rate)
    options = "trials: 50\n  pruning: false\n  seeds: 0"
    result = start(tmp_path, monkeypatch, trainings, options, space="[1e-4, 1e-3, 1e-2]").run()
    tried = [tuple(one.values.values()) for one in trainings.started]
    assert len(tried) == len(set(tried)) == 6
    assert result.status == "finished"
    for one in result.trials:
        if one.same_as is not None:
            first = result.trial(one.same_as)
            assert first is not None
            assert (one.score, one.values, one.job) == (first.score, first.values, first.job)


def test_a_run_that_diverges_is_ended_and_is_no_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(record: TrialRecord) -> float | str:
        return "diverged" if record.values["local.lora.r"] == 4 else by_rate(record)

    trainings = Trainings(score)
    result = start(tmp_path, monkeypatch, trainings, "trials: 10").run()
    diverged = [one for one in result.trials if one.outcome == "diverged"]
    assert diverged and all(one.score is None for one in diverged)
    assert result.best_trial is not None and result.best_trial.values["local.lora.r"] == 8


def test_several_failures_in_a_row_end_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(record: TrialRecord) -> float | str:
        return by_rate(record) if record.number == 0 else "failed"

    trainings = Trainings(score)
    with pytest.raises(JobFailed, match="3 trials in a row"):
        start(tmp_path, monkeypatch, trainings).run()
    assert len(trainings.started) == 4


def test_own_values_that_fail_end_it_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(JobFailed, match="own values"):
        start(tmp_path, monkeypatch, Trainings(lambda _: "failed")).run()


def test_a_trial_behind_the_others_is_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def score(record: TrialRecord) -> float:
        return 1.0 if record.number < 4 else 5.0

    trainings = Trainings(score)
    result = start(tmp_path, monkeypatch, trainings, "trials: 7\n  seeds: 0").run()
    assert [one.outcome for one in result.trials] == ["complete"] * 4 + ["pruned"] * 3
    assert result.pruning.trials == 3


def test_a_budget_leaves_time_for_the_repetitions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each run takes a minute: of 12, 6 are needed for two seeds of three trials."""
    trainings = Trainings(by_rate)
    options = "trials: 30\n  pruning: false\n  budget_minutes: 12"
    result = start(tmp_path, monkeypatch, trainings, options).run()
    assert len(result.trials) == 6 and len(result.repeats) == 6
    assert result.seconds == 12 * 60


def test_a_budget_stops_the_running_trial_at_its_validation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainings = Trainings(by_rate)
    options = "trials: 30\n  pruning: false\n  seeds: 0\n  budget_minutes: 2.5"
    result = start(tmp_path, monkeypatch, trainings, options).run()
    assert result.status == "out of time" and trainings.stopped == 1
    assert len(result.trials) == 2
    again = Trainings(by_rate)
    more = start(tmp_path, monkeypatch, again, options.replace("2.5", "4.5")).run()
    assert again.started[0].values == trainings.started[2].values
    assert more.status == "out of time"


def test_the_same_job_is_the_same_sweep(tmp_path: Path) -> None:
    names = {
        sweep_id(make_factory(tmp_path, options, **more)[0].staged)
        for options, more in [
            ("trials: 3", {}),
            ("trials: 30\n  budget_minutes: 5\n  seeds: 1", {}),
            ("trials: 3", {"own": "2e-4"}),
            ("trials: 3", {"space": "[1e-4, 1e-3]"}),
        ]
    }
    assert len(names) == 3


def test_two_processes_do_not_share_a_sweep(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "sweeps" / "a")
    with folder.lock():
        assert folder.is_running
        with pytest.raises(JobStateConflict, match="another process"), folder.lock():
            pass
    assert not folder.is_running


def test_sweeps_are_listed_and_a_damaged_one_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = start(tmp_path, monkeypatch, Trainings(by_rate), "trials: 2").run()
    home = Home(tmp_path / "home")
    (home.sweeps / "broken").mkdir()
    (home.sweeps / "broken" / "result.json").write_text("{}")
    found = list(list_sweeps(home))
    assert [type(one).__name__ for one in found] == ["BadDocument", "SweepResult"]
    assert found[1].id == result.id  # type: ignore[union-attr]


def test_a_trial_keeps_the_split_and_gets_its_own_tags(tmp_path: Path) -> None:
    factory: TrialFactory = make_factory(tmp_path)[0]
    record = TrialRecord(3, {"learningRate": 2e-4, "local.lora.r": 8}, 9)
    staged = factory.build(record)
    spec = staged.job.spec
    assert staged.manifest is factory.staged.manifest and staged.folder == factory.staged.folder
    assert (spec.seed, spec.hyperparameters["learningRate"], spec.local.lora.r) == (9, 2e-4, 8)
    assert spec.tags == {"sweep": factory.sweep_id, "trial": "3"} and spec.sweep is None


@pytest.fixture(autouse=True)
def plain_importance(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Measure no importance here: scikit-learn takes longer than all else."""
    from cloudft.sweep.importance import Importance

    found = Importance("none", 0, 12, reason="not measured")
    monkeypatch.setattr(sweep_run, "measure_importance", lambda *_: found)
    yield
