"""What every tracker must hold of a job, whatever is killed: the same tests for each of them.

A module of tests subclasses TrackerScenarios and says how its tracker's own reader shows a run.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import PlayedTrainer, kill_all, wait_until

Shown = dict[str, list[tuple[int, float]]]
"""What a reader shows: for each curve every step and value, as often as it is there."""
LONG = 20_000


class TrackerScenarios:
    """Tests of one tracker; `tracker`, `settings` and `read` are the subclass's."""

    tracker = ""
    long_run_seconds = 120.0

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        """The tracker's section, complete."""
        raise NotImplementedError

    @pytest.fixture
    def trainer(self, home: Path, settings: dict[str, Any]) -> PlayedTrainer:
        return PlayedTrainer(home, {self.tracker: settings})

    def read(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> Shown:
        """Return the values of the job's run, by the tracker's own reader."""
        raise NotImplementedError

    def read_evaluation(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> dict[str, float]:
        """Return the newest figures of the evaluation."""
        raise NotImplementedError

    def read_gaps(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> str | None:
        """Return the steps that the run names as not finite; None where it names none."""
        raise NotImplementedError

    def check(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> None:
        """Check that the tracker shows each step of the job's own curve, once."""
        shown = self.read(trainer, settings)
        for split in ("train", "validation"):
            own = {s: v for s, v in trainer.losses(split).items() if math.isfinite(v)}
            steps = [step for step, _ in shown[f"{split}/loss"]]
            assert sorted(steps) == sorted(own), f"{split}: each step once"
            assert dict(shown[f"{split}/loss"]) == pytest.approx(own, rel=1e-6)
        assert len(shown["train/learning_rate"]) == len(dict(shown["train/loss"]))

    def test_a_whole_run_shows_each_step_once(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(25))
        with trainer.feeding(self.tracker) as process:
            trainer.wait_for_points(self.tracker, 25 * 3 + 2)
            trainer.write(range(25, 40))
            trainer.complete()
            process.wait(timeout=150)
        self.check(trainer, settings)
        state = trainer.state(self.tracker)
        assert state is not None and state.status == "fed", state
        assert state.points == 40 * 3 + 4 and state.job_status == "Completed"

    def test_feeding_again_changes_nothing(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(20))
        trainer.complete()
        for _ in range(2):
            assert trainer.feed(self.tracker).status == "fed"
        self.check(trainer, settings)

    def test_a_killed_feeder_is_made_up_for(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(15))
        with trainer.feeding(self.tracker):  # SIGKILL at the end of the block
            trainer.wait_for_points(self.tracker, 15 * 3 + 1)
        trainer.write(range(15, 30))
        trainer.complete()
        assert trainer.feed(self.tracker).status == "fed"
        self.check(trainer, settings)

    @pytest.mark.parametrize("attempt", [0, 1], ids=["same-values", "other-values"])
    def test_a_resume_that_does_steps_again_shows_them_once(
        self, trainer: PlayedTrainer, settings: dict[str, Any], attempt: int
    ) -> None:
        trainer.start()
        trainer.write(range(26))
        with trainer.feeding(self.tracker) as process:
            trainer.wait_for_points(self.tracker, 26 * 3 + 2)
            trainer.kill()
            process.wait(timeout=150)  # it has seen the job fail
        trainer.resume_from(20)
        trainer.write(range(20, 40), attempt=attempt)
        trainer.complete()
        assert trainer.feed(self.tracker).status == "fed"
        self.check(trainer, settings)

    def test_kills_of_trainer_and_feeder_together(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(26))
        with trainer.feeding(self.tracker) as process:
            trainer.wait_for_points(self.tracker, 26 * 3 + 2)
            trainer.kill()
            kill_all(process)
        trainer.resume_from(10)
        with trainer.feeding(self.tracker):
            trainer.write(range(10, 18), attempt=1)
            wait_until(lambda: trainer.tracking.is_being_fed(self.tracker))
            time.sleep(1.0)
        trainer.write(range(18, 30), attempt=1)
        trainer.complete()
        assert trainer.feed(self.tracker).status == "fed"
        self.check(trainer, settings)

    def test_nan_is_left_out_and_named(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(12))
        trainer.write((12, 13), loss=math.nan)
        trainer.write((14,), loss=math.inf)
        trainer.write(range(15, 20))
        trainer.complete()
        state = trainer.feed(self.tracker)
        assert state.status == "fed" and state.not_finite == {"train/loss": 3}
        steps = [step for step, _ in self.read(trainer, settings)["train/loss"]]
        assert sorted(steps) == [*range(12), *range(15, 20)]
        assert self.read_gaps(trainer, settings) == "12 13 14"

    def test_an_evaluation_follows_and_replaces_the_one_before(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(20))
        trainer.complete()
        trainer.feed(self.tracker)
        for accuracy in (0.5, 0.75):
            trainer.evaluate(accuracy)
            assert trainer.feed(self.tracker).status == "fed"
            figures = self.read_evaluation(trainer, settings)
            assert figures == pytest.approx({"base/accuracy": 0.25, "tuned/accuracy": accuracy})
        self.check(trainer, settings)

    def test_a_long_curve_is_sent_in_bounded_time(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(LONG))
        trainer.complete()
        began = time.monotonic()
        state = trainer.feed(self.tracker)
        assert state.status == "fed" and state.points == LONG * 3 + LONG // 10, state
        assert time.monotonic() - began < self.long_run_seconds
        self.check(trainer, settings)
