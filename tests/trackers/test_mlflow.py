"""An MLflow server shows one curve of a job, by its own client."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import JOB_ID, PlayedTrainer, wait_until
from tracker_scenarios import Shown, TrackerScenarios

pytest.importorskip("mlflow.server", reason="`make test-trackers` installs MLflow's server")

from mlflow.tracking import MlflowClient


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, process_group=0)
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(f"{address}/health"), 120)
        yield address
    finally:
        os.killpg(process.pid, 15)
        process.wait()


class TestMlflow(TrackerScenarios):
    tracker = "mlflow"

    @pytest.fixture
    def settings(self, tmp_path: Path, server: str) -> dict[str, Any]:
        experiment = f"{tmp_path.name}-{time.time_ns()}"
        return {"tracking_uri": server, "experiment": experiment, "run_name": None}

    def runs(self, settings: dict[str, Any]) -> list[Any]:
        client = MlflowClient(settings["tracking_uri"])
        experiment = client.get_experiment_by_name(settings["experiment"])
        return list(client.search_runs([experiment.experiment_id]))

    def read(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> Shown:
        client = MlflowClient(settings["tracking_uri"])
        [run] = self.runs(settings)
        return {
            name: [(m.step, m.value) for m in client.get_metric_history(run.info.run_id, name)]
            for name in run.data.metrics
        }

    def read_evaluation(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> dict[str, float]:
        [run] = self.runs(settings)
        prefix = "evaluation/"
        metrics = run.data.metrics.items()
        return {k.removeprefix(prefix): v for k, v in metrics if k.startswith(prefix)}

    def read_gaps(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> str | None:
        [run] = self.runs(settings)
        return run.data.tags.get("cloudft.not_finite.train/loss")

    def test_parameters_digests_files_and_status(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        trainer.start()
        trainer.write(range(10))
        trainer.complete()
        state = trainer.feed(self.tracker)
        [run] = self.runs(settings)
        assert run.info.status == "FINISHED" and run.info.run_name == JOB_ID
        assert run.data.params["epochCount"] == "2" and run.data.params["base_model"] == "nova-lite"
        assert "2" * 64 in run.data.tags["cloudft.data.train"]
        files = MlflowClient(settings["tracking_uri"]).list_artifacts(run.info.run_id)
        assert "manifest.json" in {file.path for file in files}
        assert state.url is not None and run.info.run_id in state.url

    def test_a_dead_server_is_named_and_feeding_catches_up(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        dead = settings | {"tracking_uri": f"http://127.0.0.1:{free_port()}"}
        trainer.tracking.save_settings({self.tracker: dead})
        trainer.start()
        trainer.write(range(10))
        trainer.complete()
        state = trainer.feed(self.tracker, "--pause", "0.1")
        assert state.status == "failed" and "could not be reached" in str(state.message)
        assert state.fix is not None and state.attempt == 3
        trainer.tracking.save_settings({self.tracker: settings})
        assert trainer.feed(self.tracker).status == "fed"
        self.check(trainer, settings)

    def test_a_server_that_never_answers_is_given_up(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            hanging = settings | {"tracking_uri": address}
            trainer.tracking.save_settings({self.tracker: hanging})
            trainer.start()
            trainer.write(range(10))
            trainer.complete()
            state = trainer.feed(self.tracker, "--patience", "1", "--pause", "0.1")
        assert state.status == "failed", state
        assert "has not answered within 1 s" in str(state.message)


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return int(found.getsockname()[1])


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return response.status == 200
    except OSError:
        return False
