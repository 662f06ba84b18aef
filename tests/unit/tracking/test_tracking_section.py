"""The section `tracking`: no part of the job, no secrets, and a warning where a package lacks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Cli

from cloudft.backends import make_backend
from cloudft.backends.base import StagedJob
from cloudft.errors import SpecError
from cloudft.jobs.trackers import check_trackers
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Manifest, StagedFile

BASE = {"name": "router", "base_model": "smollm2-135m", "data": {"train": "train.jsonl"}}
SECRET = "hunter2-very-secret"
TRACKERS = {
    "mlflow": {"tracking_uri": "http://127.0.0.1:5000"},
    "tensorboard": {"dir": "runs"},
    "wandb": {"project": "tickets"},
    "trackio": {"project": "tickets"},
}


def load(folder: Path, tracking: Any = None) -> LoadedJob:
    """Load a job file with that section."""
    record = {"prompt": "Where is it?", "completion": "In Lyon."}
    (folder / "train.jsonl").write_text(json.dumps(record) + "\n")
    values = BASE | ({} if tracking is None else {"tracking": tracking})
    (folder / "cloudft.yaml").write_text(yaml.safe_dump(values))
    return load_job(folder / "cloudft.yaml")


@pytest.mark.parametrize("name", ["bedrock", "local"])
def test_a_job_is_the_same_with_and_without_trackers(tmp_path: Path, home: Path, name: str) -> None:
    plans = []
    for tracking in (None, TRACKERS):
        job = load(tmp_path, tracking)
        values = yaml.safe_load((tmp_path / "cloudft.yaml").read_text())
        if name == "bedrock":
            values["base_model"] = "nova-lite"
            values["bedrock"] = {
                "region": "us-east-1",
                "role_arn": "arn:aws:iam::123456789012:role/any",
                "s3_uri": "s3://my-bucket/team",
            }
            (tmp_path / "cloudft.yaml").write_text(yaml.safe_dump(values))
            job = load_job(tmp_path / "cloudft.yaml")
        backend = make_backend(name, Home(home)).for_job(job)
        kind = job.spec.customization_type
        file = StagedFile(1, 10, 3, "train.jsonl", "0" * 64, 10)
        manifest = Manifest("0" * 64, kind, job.model.formats[kind], 7, {"train": file}, (), "")
        plans.append(backend.plan(StagedJob(job, manifest, tmp_path)))
    assert plans[0].token == plans[1].token and plans[0].request == plans[1].request
    assert plans[0].job_id == plans[1].job_id
    assert plans[0].spec == plans[1].spec and "tracking" not in plans[1].spec


@pytest.mark.parametrize(
    ("tracking", "remedy"),
    [
        ({"wandb": {"project": "a", "api_key": SECRET}}, "WANDB_API_KEY"),
        ({"trackio": {"project": "a", "write_token": SECRET}}, "TRACKIO_WRITE_TOKEN"),
        ({"mlflow": {"tracking_uri": f"http://me:{SECRET}@host:5000"}}, "MLFLOW_TRACKING_PASSWORD"),
        ({"mlflow": {"tracking_uri": f"http://{SECRET}@host:5000"}}, "MLFLOW_TRACKING_TOKEN"),
        ({"mlflow": {"password": SECRET}}, "MLFLOW_TRACKING_TOKEN"),
        (
            {"trackio": {"project": "a", "server_url": f"http://h/?write_token={SECRET}"}},
            "TRACKIO_WRITE_TOKEN",
        ),
    ],
)
def test_a_secret_is_refused_and_not_repeated(
    tmp_path: Path, tracking: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(SpecError) as caught:
        load(tmp_path, tracking)
    [finding] = caught.value.findings
    assert finding.code == "SecretInJobFile" and remedy in str(finding.fix)
    assert str(finding.field).startswith("tracking.") and finding.line is not None
    assert SECRET not in f"{finding.message}{finding.fix}{caught.value.message}"


def test_a_missing_package_is_a_warning_with_the_command_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudft.jobs.trackers.find_spec", lambda name: None)
    found = check_trackers(load(tmp_path, {"mlflow": {}, "tensorboard": {"dir": "runs"}}))
    assert {finding.severity for finding in found} == {"warning"}
    by_field = {
        finding.field: finding for finding in found if finding.code == "TrackerNotInstalled"
    }
    assert by_field["tracking.mlflow"].fix == "pip install 'cloudft[mlflow]'"
    assert by_field["tracking.tensorboard"].line is not None
    assert [finding.code for finding in found].count("NoAddress") == 1


def test_show_names_the_trackers_with_their_origin(cli: Cli, tmp_path: Path) -> None:
    load(tmp_path, {"tensorboard": {"dir": "runs"}})
    done = cli("show", "--resolved", tmp_path / "cloudft.yaml", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert "tracking" in done.stdout and "runs" in done.stdout
