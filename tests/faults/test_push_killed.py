"""A push that is killed in the middle of an upload: the next one makes the one commit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import evaluated_job
import pytest
from hub_stand_in import USER, HubStandIn
from processes import wait_until

REPO = f"{USER}/parcels"


@pytest.fixture
def job_home(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, home: Path) -> Path:
    root = evaluated_job.shared_root(tmp_path_factory.getbasetemp())
    shutil.copytree(evaluated_job.make_evaluated_home(root, tiny_model), home)
    return home


def test_a_push_killed_in_mid_upload_leaves_nothing_half_and_the_next_makes_one_commit(
    tmp_path: Path, job_home: Path
) -> None:
    folder = tmp_path / "model"
    command = [sys.executable, "-m", "cloudft"]
    subprocess.run([*command, "export", "-", str(folder)], check=True, capture_output=True)
    hub = HubStandIn(tmp_path / "hub")
    pushing = [*command, "push", "-", REPO, "--from", str(folder)]
    environment = os.environ | hub.environment(tmp_path)
    with hub.serving():
        killed: list[int] = []

        def kill_once(received: int) -> None:
            if not killed and received > 20_000:
                killed.append(received)
                process.send_signal(signal.SIGKILL)

        hub.on_upload = kill_once
        process = subprocess.Popen(
            pushing, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        assert process.wait(60) == -signal.SIGKILL
        assert killed
        # The server has read what was under way before it was cut.
        wait_until(lambda: hub.commits(REPO) == [], "no commit")
        assert "model.safetensors" not in hub.files(REPO)

        done = subprocess.run(pushing, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert len(hub.commits(REPO)) == 1
        assert hub.files(REPO)["model.safetensors"] == (folder / "model.safetensors").read_bytes()
        again = subprocess.run(pushing, env=environment, capture_output=True, text=True, check=True)
        assert "has this model already" in again.stdout
        assert len(hub.commits(REPO)) == 1
