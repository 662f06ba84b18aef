"""Lost responses, refusals and kills around CreateTrainingJob: one job, one message about each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
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
GROUP = "kills"
SERVERLESS = {
    "role_arn": SAGEMAKER_ROLE,
    "s3_uri": f"s3://{BUCKET}/team",
    "serverless": {"model": "huggingface-reasoning-qwen3-06b", "model_package_group": GROUP},
}
SUBMIT = ("submit", "--backend", "sagemaker", "--output", "json")
CREATE = "CreateTrainingJob"


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        made.client("sagemaker").create_model_package_group(ModelPackageGroupName=GROUP)
        yield made


def jobs(endpoint: Endpoint, name: str) -> list[str]:
    listed = endpoint.client("sagemaker").list_training_jobs(NameContains=f"{name}-")
    return [job["TrainingJobName"] for job in listed["TrainingJobSummaries"]]


def write_kind(folder: Path, model: Path, name: str, kind: str) -> Path:
    """Write a job file of cloudft's trainer, or of SageMaker's own; return its folder."""
    section = SERVERLESS if kind == "serverless" else SECTION
    path = write_job_file(folder, model, name=name, sagemaker=section)
    if kind == "serverless":  # its recipes have no warmup in steps
        spec = yaml.safe_load(path.read_text())
        del spec["hyperparameters"]["learningRateWarmupSteps"]
        path.write_text(yaml.safe_dump(spec))
    return folder


@pytest.mark.parametrize("kind", ["container", "serverless"])
def test_a_lost_answer_and_a_throttled_call_make_one_job(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, kind: str
) -> None:
    folder = write_kind(tmp_path / "job", tiny_model, f"lost-{kind}", kind)
    aws.fault({"operation": CREATE, "do": "throttle"}, {"operation": CREATE, "do": "drop"})
    done = cli(*SUBMIT, "--wait", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "Completed"
    assert len(jobs(aws, f"lost-{kind}")) == 1


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


def killable(
    folder: Path, hook: Path, target: str, when: str
) -> subprocess.CompletedProcess[bytes]:
    """Run `submit`, killed at the first call of AWS whose target, method and URL have `target`."""
    hook.mkdir(exist_ok=True)
    (hook / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path = os.pathsep.join([str(hook), os.environ.get("PYTHONPATH", "")])
    how = {"KILLED": "submit", "KILL_AT": "1", "KILL_TARGET": target, "KILL_WHEN": when}
    return subprocess.run(
        [sys.executable, "-m", "cloudft", *SUBMIT],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": path, "COUNT": ""} | how,
        capture_output=True,
        check=False,
    )


@pytest.mark.parametrize("kind", ["container", "serverless"])
@pytest.mark.parametrize("moment", ["a file is sent", "before the job", "behind the job"])
def test_a_killed_submit_is_continued(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, moment: str, kind: str
) -> None:
    name = f"{moment.replace(' ', '-')}-{kind}"
    folder = write_kind(tmp_path / "job", tiny_model, name, kind)
    target = " PUT " if moment == "a file is sent" else CREATE
    when = "before" if moment == "before the job" else "after"
    assert killable(folder, tmp_path / "hook", target, when).returncode == -9
    assert len(jobs(aws, name)) == (1 if moment == "behind the job" else 0)
    again = cli(*SUBMIT, cwd=folder)
    assert again.returncode == 0, again.stderr
    assert jobs(aws, name) == [json.loads(again.stdout)["id"]]
