"""TensorBoard shows one curve of a job, by its own readers."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import JOB_ID, PlayedTrainer
from tracker_scenarios import Shown, TrackerScenarios

pytest.importorskip("tensorboard", reason="the extra cloudft[tensorboard] is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cloudft.tracking.sinks.tensorboard_sink import event_files

EVERYTHING = {"scalars": 0, "tensors": 0}


class TestTensorboard(TrackerScenarios):
    tracker = "tensorboard"

    @pytest.fixture
    def settings(self, tmp_path: Path) -> dict[str, Any]:
        return {"dir": str(tmp_path / "runs")}

    def read(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> Shown:
        found = _load(Path(settings["dir"]) / JOB_ID)
        return {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in _scalars(found)}

    def read_evaluation(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> dict[str, float]:
        found = _load(Path(settings["dir"]) / JOB_ID / "evaluation")
        values = {tag: [e.value for e in found.Scalars(tag)] for tag in _scalars(found)}
        assert all(len(each) == 1 for each in values.values())
        return {tag: each[0] for tag, each in values.items()}

    def read_gaps(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> str | None:
        found = _load(Path(settings["dir"]) / JOB_ID)
        [text] = found.Tensors("not_finite")
        table = text.tensor_proto.string_val[0].decode()
        return table.splitlines()[-1].split("|")[2].strip()

    def test_a_record_that_a_kill_cut_off_is_cut_away(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(15))
        with trainer.feeding(self.tracker):
            trainer.wait_for_points(self.tracker, 15 * 3 + 1)
        [file] = event_files(Path(settings["dir"]) / JOB_ID)
        file.write_bytes(file.read_bytes()[:-7])
        trainer.write(range(15, 20))
        trainer.complete()
        assert trainer.feed(self.tracker).status == "fed"
        assert event_files(file.parent) == [file]
        self.check(trainer, settings)

    def test_parameters_and_digests_are_there(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(10))
        trainer.complete()
        trainer.feed(self.tracker)
        found = _load(Path(settings["dir"]) / JOB_ID)
        [text] = found.Tensors("job")
        assert "2" * 64 in text.tensor_proto.string_val[0].decode()
        assert found.PluginTagToContent("hparams")


def _load(folder: Path) -> EventAccumulator:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return EventAccumulator(str(folder), size_guidance=EVERYTHING).Reload()


def _scalars(found: EventAccumulator) -> list[str]:
    tags: list[str] = found.Tags()["scalars"]
    return sorted(tags)
