"""Lost responses, refusals and kills around CreateTrainingJob: one job, one message about each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from endpoint import BUCKET, SAGEMAKER_ROLE, Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli
from test_aws_killed import SITECUSTOMIZE

SECTION = {
    "role_arn": SAGEMAKER_ROLE,
    "s3_uri": f"s3://{BUCKET}/team",
    "image_uri": "pytorch-training:any",
    "instance_type": "ml.m5.xlarge",
}
SUBMIT = ("submit", "--backend", "sagemaker", "--output", "json")
CREATE = "CreateTrainingJob"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    return endpoint


def jobs(endpoint: Endpoint, name: str) -> list[str]:
    listed = endpoint.client("sagemaker").list_training_jobs(NameContains=f"{name}-")
    return [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]]


def test_a_lost_answer_and_a_throttled_call_make_one_job(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path
) -> None:
    folder = write_job_file(tmp_path / "job", tiny_model, name="lost", sagemaker=SECTION).parent
    aws.fault({"operation": CREATE, "do": "throttle"}, {"operation": CREATE, "do": "drop"})
    done = cli(*SUBMIT, "--wait", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "Completed"
    assert len(jobs(aws, "lost")) == 1


def test_a_refusal_names_the_fault_and_the_next_submit_succeeds(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path
) -> None:
    folder = write_job_file(tmp_path / "job", tiny_model, name="refused", sagemaker=SECTION).parent
    aws.fault({"operation": CREATE, "do": "deny"})
    denied = cli(*SUBMIT, cwd=folder)
    assert denied.returncode == 4 and CREATE in json.loads(denied.stdout)["error"]["fix"]
    assert jobs(aws, "refused") == []
    done = cli(*SUBMIT, cwd=folder)
    assert done.returncode == 0 and jobs(aws, "refused") == [json.loads(done.stdout)["id"]]
    assert len(list((tmp_path / "home" / "jobs").iterdir())) == 1


def killable(folder: Path, hook: Path, at: int, when: str) -> subprocess.CompletedProcess[bytes]:
    """Run `submit`, killed at that call of AWS; record all calls in the hook's folder."""
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    how = {"KILLED": "submit", "KILL_AT": str(at), "KILL_WHEN": when, "COUNT": str(hook / "calls")}
    return subprocess.run(
        [sys.executable, "-m", "cloudft", *SUBMIT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path} | how,
        capture_output=True,
        check=False,
    )


@pytest.fixture(scope="module")
def calls(
    endpoint: Endpoint, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> list[str]:
    """Return the calls of a whole submit, by their methods."""
    root = tmp_path_factory.mktemp("counted")
    folder = write_job_file(root / "job", tiny_model, name="counted", sagemaker=SECTION).parent
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (endpoint.environ | {"CLOUDFT_HOME": str(root / "home")}).items():
            patch.setenv(name, value)
        assert killable(folder, root / "hook", 0, "never").returncode == 0
    return [line.split()[0] for line in (root / "hook" / "calls").read_text().splitlines()]


@pytest.mark.parametrize("moment", ["a file is sent", "before the job", "behind the job"])
def test_a_killed_submit_is_continued(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, calls: list[str], moment: str
) -> None:
    name = moment.replace(" ", "-")
    folder = write_job_file(tmp_path / "job", tiny_model, name=name, sagemaker=SECTION).parent
    create = len(calls) - calls[::-1].index("PUT") + 1  # the call behind the last file
    at = calls.index("PUT") + 1 if moment == "a file is sent" else create
    when = "before" if moment == "before the job" else "after"
    assert killable(folder, tmp_path / "hook", at, when).returncode == -9
    assert len(jobs(aws, name)) == (1 if moment == "behind the job" else 0)
    again = cli(*SUBMIT, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert jobs(aws, name) == [json.loads(again.stdout)["id"]]
