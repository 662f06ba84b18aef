"""A job on Bedrock reaches its trackers when it comes home."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from endpoint import Endpoint
from job_files import write_job_file
from processes import Cli
from tracked_jobs import wait_until

from cloudft.storage.tracking_files import TrackingFolder

pytest.importorskip("tensorboard", reason="the extra cloudft[tensorboard] is not installed")


@pytest.fixture
def endpoint(fast_account: Endpoint) -> Endpoint:
    return fast_account


def test_a_bedrock_job_is_tracked_when_it_comes_home(
    cli: Cli, aws: Endpoint, tmp_path: Path, home: Path
) -> None:
    from cloudft.tracking.sinks.tensorboard_sink import _read_file, event_files

    path = write_job_file(
        tmp_path / "job",
        Path("nova-micro"),
        name="tracked",
        bedrock=aws.bedrock_section,
        tracking={"tensorboard": {"dir": "runs"}},
    )
    spec = yaml.safe_load(path.read_text()) | {"hyperparameters": {"epochCount": 1}}
    path.write_text(yaml.safe_dump(spec))
    done = cli("submit", path, "--backend", "bedrock", "--output", "json")
    assert done.returncode == 0, done.stderr
    job_id = json.loads(done.stdout)["id"]
    watched = cli("watch", job_id, "--output", "json")
    assert json.loads(watched.stdout)["status"] == "Completed", watched.stderr
    folder = TrackingFolder(home / "jobs" / job_id)
    wait_until(lambda: (s := folder.load_state("tensorboard")) is not None and s.status == "fed")
    metrics = json.loads(cli("metrics", job_id, "--output", "json").stdout)
    own = {p["step"]: p["loss"] for p in metrics if p["split"] == "train"}
    [file] = event_files(path.parent / "runs" / job_id)
    values, _, _ = _read_file(file)
    sent = {step: value for (name, step), value in values.items() if name == "train/loss"}
    assert own and sent == pytest.approx(own, rel=1e-6)
    tracked = cli("track", job_id, "--output", "json")
    assert tracked.returncode == 0, tracked.stderr
    assert json.loads(tracked.stdout)["trackers"]["tensorboard"]["status"] == "fed"
