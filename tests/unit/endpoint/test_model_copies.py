"""Copy jobs of the endpoint: between its Regions, over time, through a restart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from processes import wait_until

from cloudft.endpoint.bedrock.model_copy_jobs import SOURCE_GONE, ModelCopyJobs
from cloudft.endpoint.protocols.messages import ServiceError
from cloudft.endpoint.state import Job, Model, State

BASE = "amazon.nova-micro-v1:0:128k"
TRAINING = {
    "jobName": "first",
    "customModelName": "first",
    "roleArn": "arn:aws:iam::000000000000:role/any",
    "baseModelIdentifier": BASE,
    "trainingDataConfig": {"s3Uri": "s3://bucket/train.jsonl"},
    "outputDataConfig": {"s3Uri": "s3://bucket/out"},
}


def two_regions(folder: Path) -> tuple[State, State, Model]:
    """Return the states of two Regions, and a trained model in the first."""
    (folder / "east").mkdir(parents=True, exist_ok=True)
    (folder / "west").mkdir(exist_ok=True)
    east, west = State("us-east-1", folder / "east"), State("us-west-2", folder / "west")
    west.join(east)
    base = f"arn:aws:bedrock:us-east-1::foundation-model/{BASE}"
    job = Job(east.arn("model-customization-job", BASE), TRAINING, base)
    model = Model(east.arn("custom-model", BASE), "first", base, job.arn)
    east.jobs[job.arn], east.models[model.arn] = job, model
    return east, west, model


def request(model: Model, name: str = "second", **more: Any) -> Any:
    return {"sourceModelArn": model.arn, "targetModelName": name, **more}


def test_a_copy_is_a_model_of_its_region_alone(tmp_path: Path) -> None:
    east, west, model = two_regions(tmp_path)
    copies = ModelCopyJobs(west, tmp_path)
    tags = [{"key": "team", "value": "a"}]
    token = {"clientRequestToken": "once", "targetModelTags": tags}
    arn = copies.create_model_copy_job(request(model, **token))["jobArn"]
    assert copies.create_model_copy_job(request(model, **token))["jobArn"] == arn
    [copied] = west.models.values()
    assert ":us-west-2:" in copied.arn
    assert copied.base_model_arn == f"arn:aws:bedrock:us-west-2::foundation-model/{BASE}"
    assert list(east.models) == [model.arn] and west.tags[copied.arn] == {"team": "a"}
    assert west.job_of(copied) is east.jobs[str(model.job_arn)]
    shown = copies.get_model_copy_job({"jobArn": arn})
    assert (shown["status"], shown["sourceModelName"]) == ("Completed", "first")
    assert shown["targetModelTags"] == tags


def test_a_name_in_use_a_missing_source_and_another_account_are_refused(tmp_path: Path) -> None:
    _, west, model = two_regions(tmp_path)
    copies = ModelCopyJobs(west, tmp_path, seconds=60.0)
    copies.create_model_copy_job(request(model))
    with pytest.raises(ServiceError, match="in use"):  # also while the first copy is running
        copies.create_model_copy_job(request(model))
    for arn in (
        model.arn.replace("000000000000", "111122223333"),
        model.arn.replace("us-east-1", "eu-west-1"),
        model.arn[:-12] + "abcdefghijkl",
    ):
        with pytest.raises(ServiceError, match="Could not find the custom model"):
            copies.create_model_copy_job({"sourceModelArn": arn, "targetModelName": "third"})


def test_a_copy_takes_its_time_and_survives_a_restart(tmp_path: Path) -> None:
    east, west, model = two_regions(tmp_path)
    east.save()
    copies = ModelCopyJobs(west, tmp_path, seconds=600.0)
    arn = copies.create_model_copy_job(request(model))["jobArn"]
    assert copies.get_model_copy_job({"jobArn": arn})["status"] == "InProgress"
    assert west.models == {}
    restarted = State("us-west-2", tmp_path / "west")
    restarted.join(State("us-east-1", tmp_path / "east"))
    again = ModelCopyJobs(restarted, tmp_path)
    again.resume()
    wait_until(lambda: restarted.models, "the copy is made")
    assert again.get_model_copy_job({"jobArn": arn})["status"] == "Completed"


def test_a_copy_whose_source_is_deleted_meanwhile_fails(tmp_path: Path) -> None:
    east, west, model = two_regions(tmp_path)
    copies = ModelCopyJobs(west, tmp_path, seconds=0.2)
    arn = copies.create_model_copy_job(request(model))["jobArn"]
    del east.models[model.arn]
    wait_until(lambda: west.copies[arn].ended, "the copy has ended")
    shown = copies.get_model_copy_job({"jobArn": arn})
    assert (shown["status"], shown["failureMessage"]) == ("Failed", SOURCE_GONE)
    assert west.models == {}


def test_the_files_of_a_created_model_are_copied(tmp_path: Path) -> None:
    east, west, _ = two_regions(tmp_path)
    folder = tmp_path / "custom" / "abcdefghijkl"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    arn = "arn:aws:bedrock:us-east-1:000000000000:custom-model/imported/abcdefghijkl"
    model = Model(arn, "nova", "", folder=str(folder), architecture="X")
    east.models[arn] = model
    ModelCopyJobs(west, tmp_path / "west").create_model_copy_job(request(model))
    [copied] = west.models.values()
    assert copied.folder != model.folder and (Path(str(copied.folder)) / "config.json").is_file()
    assert ":custom-model/imported/" in copied.arn
