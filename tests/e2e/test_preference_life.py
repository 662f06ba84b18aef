"""A job of pairs here and on SageMaker, refused on Bedrock by name; and its evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from endpoint import BUCKET, REGION, ROLE, SAGEMAKER_ROLE, Endpoint, running_endpoint
from processes import Cli, JobFile, read_jsonl

from cloudft.storage.artifacts import TRAINING_CSV, VALIDATION_CSV

PAIRS: list[dict[str, Any]] = [
    {"prompt": record["prompt"], "chosen": city, "rejected": f"The last line. It is in {city}."}
    for number, record in enumerate(tiny.pairs(24))
    for city in [tiny.CITIES[number % len(tiny.CITIES)]]
]
"""In trl's form: short answers are preferred."""


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint() as made:
        yield made


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr + done.stdout
    return json.loads(done.stdout)


def write(job_file: JobFile) -> Path:
    return job_file(
        name="pairs",
        customization_type="PREFERENCE_OPTIMIZATION",
        preference={"method": "dpo", "beta": 0.2},
        records=PAIRS[:16],
        validation=PAIRS[16:],
        bedrock={"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"},
        sagemaker={
            "role_arn": SAGEMAKER_ROLE,
            "s3_uri": f"s3://{BUCKET}/team",
            "image_uri": "pytorch-training:any",
            "instance_type": "ml.g5.2xlarge",
        },
        hyperparameters={"epochCount": 4, "learningRate": 0.006},
    )


def test_sagemaker_trains_pairs_as_this_machine_does(
    cli: Cli, aws: Endpoint, job_file: JobFile, home: Path
) -> None:
    path = write(job_file)
    curves = []  # loss and the perplexity of the chosen answers, of each step
    for backend in ("sagemaker", "local"):
        words = ("submit", path, "--backend", backend, "--wait", "--output", "json")
        job = value(cli(*words, timeout=300))
        assert job["status"] == "Completed"
        names = (TRAINING_CSV, VALIDATION_CSV)
        curves.append([Path(job["artifacts"], name).read_bytes() for name in names])
    there, here = curves
    assert there == here
    last = read_jsonl(home / "jobs" / job["id"] / "metrics.jsonl")[-1]
    assert last["preferenceAccuracy"] > 0.5 and last["rewardMargin"] > 0.0
    found = value(cli("evaluate", job["id"], "--output", "json", timeout=300))
    assert (found["task"], found["n"], found["metric"]) == ("preference", 8, "preferenceAccuracy")
    assert found["tuned"]["preferenceAccuracy"] >= found["base"]["preferenceAccuracy"]
    assert found["base"]["rewardMargin"] == 0.0 < found["tuned"]["rewardMargin"]
    margin = found["delta"]["rewardMargin"]
    assert margin["low"] <= found["tuned"]["rewardMargin"] <= margin["high"]


def test_bedrock_refuses_pairs_in_one_finding_that_names_the_route(
    cli: Cli, aws: Endpoint, job_file: JobFile
) -> None:
    done = cli("check", write(job_file), "--backend", "bedrock", "--output", "json")
    errors = [f for f in json.loads(done.stdout)["findings"] if f["severity"] == "error"]
    [found] = errors
    assert (found["code"], found["field"]) == ("NotOnBedrock", "customization_type")
    assert "--backend sagemaker" in found["fix"] and "`cloudft import" in found["fix"]
