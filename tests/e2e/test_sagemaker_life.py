"""One job file on SageMaker, from the command line, against an endpoint that runs its container."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
import yaml
from endpoint import BUCKET, REGION, ROLE, SAGEMAKER_ROLE, Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli, wait_until

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.storage.artifacts import TRAINING_CSV, VALIDATION_CSV
from cloudft.storage.home import Home

SECTION = {
    "role_arn": SAGEMAKER_ROLE,
    "s3_uri": f"s3://{BUCKET}/team",
    "image_uri": "pytorch-training:any",
    "instance_type": "ml.g5.2xlarge",
    "spot": True,
}


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as made:
        yield made


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def write(folder: Path, model: Path, name: str, **more: Any) -> Path:
    options = {
        "records": 12,
        "validation": tiny.pairs(4),
        "bedrock": {"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"},
        "sagemaker": SECTION,
        "hyperparameters": {"epochCount": 6, "learningRate": 0.03},
    }
    return write_job_file(folder, model, name=name, **options | more)


def created(endpoint: Endpoint, name: str) -> list[dict[str, Any]]:
    """Return the requests for training jobs of that name."""
    calls = endpoint.calls("CreateTrainingJob")
    return [call for call in calls if call["TrainingJobName"].startswith(f"{name}-")]


def test_it_trains_there_as_it_does_here_and_its_model_is_imported(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "job"
    write(folder, tiny_model, "cloud", tags={"team": "support"})
    before = aws.object_keys()
    words = ("submit", "--backend", "sagemaker", "--dry-run", "--output", "json")
    dry = value(cli(*words, cwd=folder))
    assert aws.object_keys() == before
    words = ("submit", "--backend", "sagemaker", "--wait", "--import", "--output", "json")
    imported = value(cli(*words, cwd=folder, timeout=200))
    assert (imported["backend"], imported["status"]) == ("import", "Completed")
    [requested] = created(aws, "cloud")
    assert requested == dry["request"]["calls"][-1]["parameters"]
    job = value(cli("list", "--backend", "sagemaker", "--output", "json"))[0]
    assert job["status"] == "Completed"
    job = value(cli("status", job["id"], "--output", "json"))
    assert job["progress"]["step"] == job["progress"]["totalSteps"] == 18
    assert 0 < job["summary"]["usd"] < 24 * 1.515, "a day is the bound"
    assert job["cost"] == {"usd": job["summary"]["usd"], "estimated": False}
    here = value(cli("submit", "--wait", "--output", "json", cwd=folder, timeout=200))
    for name in (TRAINING_CSV, VALIDATION_CSV):
        ours, theirs = (Path(j["artifacts"], name).read_bytes() for j in (here, job))
        assert ours == theirs
    again = value(cli("submit", "--backend", "sagemaker", "--output", "json", cwd=folder))
    assert again["id"] == job["id"] and len(created(aws, "cloud")) == 1
    shutil.rmtree(tmp_path / "home" / "jobs" / job["id"])
    listed = cli("list", "--backend", "sagemaker", "--output", "json")
    assert value(listed)[0]["id"] == job["id"] and "another machine" in listed.stderr


def test_a_machine_taken_away_a_stop_and_a_resume_are_one_job(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path, home: Path
) -> None:
    folder = tmp_path / "job"
    write(folder, tiny_model, "spot", hyperparameters={"epochCount": 1000, "learningRate": 1e-4})
    words = ("submit", "--backend", "sagemaker", "--output", "json")
    job = value(cli(*words, cwd=folder))["id"]

    backend = SageMakerBackend(Home(home), Aws(AwsLocation(region=REGION, endpoint_url=aws.url)))

    def step() -> int:
        progress = backend.describe(job).progress
        return progress.step if progress else 0

    wait_until(lambda: step() > 5, "it trains")
    resources = value(cli("ps", "--cost", "--output", "json"))["things"]
    [machine] = [resource for resource in resources if resource["kind"] == "training-job"]
    assert machine["job"] == job and machine["usd"]["perHour"] == 1.515
    assert machine["usd"]["perMonth"] == pytest.approx(1.515 * 24), "it is stopped after a day"
    assert machine["basis"].startswith("1 x ml.g5.2xlarge (Price List API")
    garbage = value(cli("gc", "--dry-run", "--output", "json"))["found"]
    assert not [resource for resource in garbage if resource["job"] == job]
    aws.fault({"operation": "spotInterruption", "do": "fail"})
    client = aws.client("sagemaker")

    def seen() -> bool:
        reported = client.describe_training_job(TrainingJobName=job)
        second = [one["Status"] for one in reported["SecondaryStatusTransitions"]]
        return second.count("Training") == 2

    wait_until(seen, "another machine goes on")
    wait_until(lambda: step() > 5, "it trains again")
    stopped = value(cli("stop", job, "--wait", "--output", "json"))
    assert stopped["status"] == "Stopped"
    at = stopped["progress"]["step"]
    value(cli("resume", job, "--output", "json"))
    wait_until(lambda: step() > at, "it goes on behind the stop")
    backend.stop(job)
    steps = [point.step for point in backend.metrics(job) if point.split == "train"]
    assert steps == list(range(len(steps))) and len(steps) > at
    log = "\n".join(line.text for line in backend.logs(job))
    assert "resuming after step" in log and "#cloudft" not in log
    assert [call["TrainingJobName"] for call in created(aws, "spot")] == [job, f"{job}-r1"]


def test_other_code_is_not_run(aws: Endpoint) -> None:
    client = aws.client("sagemaker")
    with pytest.raises(client.exceptions.ClientError, match="own trainer alone"):
        client.create_training_job(
            TrainingJobName="other",
            RoleArn=SAGEMAKER_ROLE,
            AlgorithmSpecification={
                "TrainingImage": "any",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["/bin/bash", "-c"],
                "ContainerArguments": ["touch touched"],
            },
            OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/other"},
            ResourceConfig={
                "InstanceType": "ml.m5.xlarge",
                "InstanceCount": 1,
                "VolumeSizeInGB": 1,
            },
            StoppingCondition={"MaxRuntimeInSeconds": 60},
        )
    with pytest.raises(client.exceptions.ClientError, match="resource not found"):
        client.describe_training_job(TrainingJobName="other")


def test_sagemaker_itself_tunes_the_model_and_its_weights_are_exported_and_imported(
    cli: Cli, aws: Endpoint, tiny_model: Path, tmp_path: Path
) -> None:
    folder, section = tmp_path / "job", {"role_arn": SAGEMAKER_ROLE, "s3_uri": SECTION["s3_uri"]}
    own = {"model": "huggingface-reasoning-qwen3-06b", "model_package_group": "support"}
    path = write(folder, tiny_model, "own", sagemaker={**section, "serverless": own})
    spec = yaml.safe_load(path.read_text())
    spec["hyperparameters"] = {"epochCount": 3, "batchSize": 4, "learningRate": 0.001}
    path.write_text(yaml.safe_dump(spec))
    words = ("submit", "--backend", "sagemaker", "--output", "json")
    missing = json.loads(cli(*words, cwd=folder).stdout)["error"]
    assert "create-model-package-group" in missing["fix"]
    aws.client("sagemaker").create_model_package_group(ModelPackageGroupName="support")
    dry = value(cli(*words, "--dry-run", cwd=folder))
    job = value(cli(*words, "--wait", cwd=folder, timeout=600))
    assert job["status"] == "Completed"
    [requested] = created(aws, "own")
    assert requested == dry["request"]["calls"][-1]["parameters"]
    assert "ResourceConfig" not in requested
    [data] = [k for k in aws.object_keys() if k.endswith("/train.jsonl") and "/data/" in k][-1:]
    body = aws.client("s3").get_object(Bucket=BUCKET, Key=data)["Body"].read()
    assert set(json.loads(body.splitlines()[0])) == {"messages"}
    points = value(cli("metrics", job["id"], "--output", "json"))
    assert [p["step"] for p in points] == list(range(9)) and points[-1]["loss"] < points[0]["loss"]
    weights = job["summary"]["weights"]
    assert weights.startswith(f"s3://{BUCKET}/team/jobs/{job['id']}/output/")
    exported = value(cli("export", job["id"], str(tmp_path / "merged"), "--output", "json"))
    assert exported["source"] == f"{weights}checkpoints/hf_merged/"
    imported = value(cli("import", job["id"], "--wait", "--output", "json", timeout=600))
    assert (imported["backend"], imported["status"]) == ("import", "Completed")
    again = value(cli(*words, cwd=folder))
    assert again["id"] == job["id"] and len(created(aws, "own")) == 1
    refused = json.loads(cli("generate", job["id"], "--prompt", "x", "--output", "json").stdout)
    assert "cloudft import" in refused["error"]["fix"]
    found = value(cli("gc", "--dry-run", "--output", "json"))["found"]
    staged = [one for one in found if one["kind"] == "data" and one["job"] == job["id"]]
    assert {one["name"] for one in staged} == {"train.jsonl", "validation.jsonl"}
    shutil.rmtree(tmp_path / "home" / "jobs" / job["id"])
    listed = cli("list", "--backend", "sagemaker", "--output", "json")
    assert job["id"] in [one["id"] for one in value(listed)], listed.stderr
