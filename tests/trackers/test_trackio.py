"""Trackio shows one curve of a job: in its files on this machine, and on a server."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tracked_jobs import JOB_ID, PlayedTrainer, wait_until
from tracker_scenarios import Shown, TrackerScenarios

pytest.importorskip("trackio", reason="`make test-trackers` installs Trackio")

READ = """
import json, sys
from trackio import SQLiteStorage
project, run = sys.argv[1:]
rows = SQLiteStorage.get_logs(project, run, run_id=run)
config = SQLiteStorage.get_run_config(project, run, run_id=run)
runs = SQLiteStorage.get_runs(project)
print(json.dumps({"rows": rows, "config": config, "runs": runs}, default=str))
"""
SERVE = """
import trackio
app, url, share, full = trackio.show(open_browser=False, block_thread=False, host="127.0.0.1")
print("ADDRESS", full, flush=True)
import time
time.sleep(3600)
"""


class TrackioScenarios(TrackerScenarios):
    """What holds of the files and of a server."""

    tracker = "trackio"

    def stored(self, settings: dict[str, Any]) -> dict[str, Any]:
        """Return what Trackio's own storage has of the run, read by another process."""
        command = [sys.executable, "-c", READ, settings["project"], JOB_ID]
        found: dict[str, Any] = json.loads(subprocess.check_output(command).splitlines()[-1])
        assert found["runs"] == [JOB_ID]
        return found

    def read(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> Shown:
        shown: Shown = {}
        for row in self.stored(settings)["rows"]:
            for name, value in row.items():
                if name not in ("step", "timestamp"):
                    shown.setdefault(name, []).append((row["step"], value))
        return shown

    def read_evaluation(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> dict[str, float]:
        newest: dict[str, float] = {}
        for name, points in self.read(trainer, settings).items():
            if name.startswith("evaluation/"):
                newest[name.removeprefix("evaluation/")] = points[-1][1]
        return newest

    def read_gaps(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> str | None:
        return self.stored(settings)["config"].get("not_finite.train/loss")

    def test_parameters_and_digests(self, trainer: PlayedTrainer, settings: dict[str, Any]) -> None:
        trainer.start()
        trainer.write(range(10))
        trainer.complete()
        trainer.feed(self.tracker)
        config = self.stored(settings)["config"]
        assert config["epochCount"] == 2 and config["status"] == "Completed"
        assert "2" * 64 in config["data.train"]


class TestTrackioFiles(TrackioScenarios):
    @pytest.fixture
    def settings(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
        monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
        return {"project": "tickets", "server_url": None}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str, Path]]:
    """Start a server; yield its address, its write token and its folder."""
    folder = tmp_path_factory.mktemp("trackio")
    log = folder / "log"
    environ = os.environ | {"TRACKIO_DIR": str(folder / "data"), "HOME": str(folder)}
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-c", SERVE], stdout=out, stderr=out, env=environ, cwd=folder
        )
    try:
        wait_until(lambda: b"ADDRESS" in log.read_bytes(), 120)
        address = re.search(r"ADDRESS (\S+?)/?\?.*write_token=([^&\s]+)", log.read_text())
        assert address is not None, log.read_text()
        yield address[1], address[2], folder / "data"
    finally:
        process.terminate()
        process.wait()


class TestTrackioServer(TrackioScenarios):
    @pytest.fixture
    def settings(
        self,
        server: tuple[str, str, Path],
        monkeypatch: pytest.MonkeyPatch,
        request: pytest.FixtureRequest,
    ) -> dict[str, Any]:
        address, token, folder = server
        monkeypatch.setenv("TRACKIO_WRITE_TOKEN", token)
        monkeypatch.setenv("TRACKIO_DIR", str(folder))  # of `stored`; a feeder goes by the server
        project = re.sub(r"\W+", "-", request.node.name).strip("-")[:60]
        return {"project": project, "server_url": address}

    def test_without_a_write_token_the_fix_is_named(
        self,
        trainer: PlayedTrainer,
        settings: dict[str, Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.delenv("TRACKIO_WRITE_TOKEN")
        trainer.start()
        trainer.write(range(3))
        trainer.complete()
        state = trainer.feed(self.tracker, "--pause", "0.1")
        assert state.status == "failed" and "TRACKIO_WRITE_TOKEN" in str(state.fix)

    def test_a_server_that_never_answers_is_given_up(
        self, trainer: PlayedTrainer, settings: dict[str, Any]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            address = f"http://127.0.0.1:{silent.getsockname()[1]}"
            trainer.tracking.save_settings({self.tracker: settings | {"server_url": address}})
            trainer.start()
            trainer.write(range(10))
            trainer.complete()
            state = trainer.feed(self.tracker, "--patience", "1", "--pause", "0.1")
        assert state.status == "failed" and "has not answered within 1 s" in str(state.message)
