"""Jobs of Bedrock's OpenAI-compatible API: checks, the exact request, states, curves."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from job_files import write_job_file
from processes import Cli

from cloudft.aws.openai_errors import CODES
from cloudft.aws.request_validation import load_service_model
from cloudft.backends import make_backend
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.bedrock.openai_api import request, states
from cloudft.backends.bedrock.openai_api.backend import OpenAIFineTuningBackend
from cloudft.backends.bedrock.openai_api.caller_policy import ACTIONS, INFERENCE_ACTION
from cloudft.backends.bedrock.openai_api.inventory import find_jobs_graded_by
from cloudft.backends.bedrock.openai_api.preflight import check_offline
from cloudft.endpoint.openai_api.records import ENDED
from cloudft.errors import CloudRefused
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.artifacts import read_metrics
from cloudft.storage.home import Home
from cloudft.types import Metric

LAMBDA = "arn:aws:lambda:us-west-2:000000000000:function:grader"
GRADER: dict[str, Any] = {"lambda_arn": LAMBDA}
RECORDS = [
    {"messages": [{"role": "user", "content": f"{n} + 1?"}], "reference_answer": str(n + 1)}
    for n in range(100)
]


def load(folder: Path, model: str = "qwen3-32b", **more: Any) -> LoadedJob:
    sections = {"reinforcement": GRADER, "bedrock": {"region": "us-west-2"}} | more
    path = write_job_file(
        folder,
        Path(model),
        customization_type="REINFORCEMENT_FINE_TUNING",
        records=RECORDS,
        **sections,
    )
    return load_job(path)


def hyper(**values: Any) -> dict[str, Any]:
    return {"reinforcement": {**GRADER, "hyperparameters": values}}


BEDROCK: dict[str, Any] = {"region": "us-west-2"}
KEY = "alias/mine"
ROLE = "arn:aws:iam::000000000000:role/any"
WRONG: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "a rate": (hyper(learningRate=1e-5), "learningRate", "BadHyperparameter", "learningRateMult"),
    "a name of Nova": (hyper(reasoningEffort="high"), "reasoningEffort", "BadHyperparameter", ""),
    "half an epoch": (hyper(epochCount=1.5), "epochCount", "BadHyperparameter", "whole"),
    "no batch": (hyper(batchSize=0), "batchSize", "BadHyperparameter", "above 0"),
    "a word": (hyper(batchSize="auto"), "batchSize", "BadHyperparameter", "number"),
    "another Region": (
        {
            "bedrock": {"region": "us-east-1"},
            "reinforcement": {"lambda_arn": LAMBDA.replace("west-2", "east-1")},
        },
        "bedrock.region",
        "RegionUnsupported",
        "us-west-2",
    ),
    "no Region": ({"bedrock": {}}, "bedrock.region", "MissingValue", "us-west-2"),
    "a grader elsewhere": (
        {"reinforcement": {"lambda_arn": LAMBDA.replace("west", "east")}},
        "reinforcement.lambda_arn",
        "WrongRegion",
        "",
    ),
    "a key": ({"bedrock": BEDROCK | {"kms_key_id": KEY}}, "kms_key_id", "UnusedValue", "remove"),
    "a name": (
        {"bedrock": BEDROCK | {"custom_model_name": "mine"}},
        "custom_model_name",
        "UnusedValue",
        "remove",
    ),
    "parameters": (
        {"bedrock": BEDROCK | {"request": {"suffix": "mine"}}},
        "bedrock.request",
        "UnusedValue",
        "remove",
    ),
    "a role": ({"bedrock": BEDROCK | {"role_arn": ROLE}}, "bedrock.role_arn", "UnusedValue", ""),
}


@pytest.mark.parametrize("name", sorted(WRONG))
def test_what_the_api_lacks_is_named(tmp_path: Path, name: str) -> None:
    changed, field, code, fix = WRONG[name]
    [found] = check_offline(load(tmp_path, **changed))
    assert found.code == code and str(found.field).endswith(field) and fix in str(found.fix)
    assert found.severity == ("warning" if name == "a role" else "error")
    assert found.line


@pytest.mark.parametrize("model", ["gpt-oss-20b", "qwen3-32b"])
def test_the_request_is_that_of_the_user_guide(tmp_path: Path, model: str) -> None:
    values = {"epochCount": 1, "batchSize": 4, "learningRateMultiplier": 1.5}
    job = load(tmp_path, model, **hyper(**values))
    assert check_offline(job) == []
    staged = with_placeholder_data(job)
    upload, create = request.api_calls(staged, request.request_token(staged))
    assert create.parameters == {
        "model": job.model.bedrock_id,
        "training_file": f"<id of {upload.parameters['form']['filename']}>",
        "method": {
            "type": "reinforcement",
            "reinforcement": {
                "grader": {"type": "lambda", "lambda": {"function": LAMBDA}},
                "hyperparameters": {
                    "n_epochs": 1,
                    "batch_size": 4,
                    "learning_rate_multiplier": 1.5,
                },
            },
        },
    }
    again = load(tmp_path, model, **hyper(**{**values, "batchSize": 8}))
    assert request.request_token(with_placeholder_data(again)) != request.request_token(staged)
    second = request.request_token(dataclasses.replace(staged, attempt=1))
    assert second != request.request_token(staged)


def test_the_job_file_and_the_record_lead_to_the_same_backend(tmp_path: Path) -> None:
    job = load(tmp_path)
    bedrock = make_backend("bedrock", Home(tmp_path))
    of_file = bedrock.for_job(job)
    of_record = bedrock.bind(request.location_of(job))
    for backend in (of_file, of_record):
        assert type(backend) is OpenAIFineTuningBackend and backend.name == "bedrock"
    nova = load(tmp_path, "nova-2-lite")
    assert type(bedrock.for_job(nova)) is type(bedrock)


def test_every_status_and_error_of_the_service_model_is_known() -> None:
    model = load_service_model(request.SERVICE)
    assert set(states.STATUSES) == set(model.shape_for("JobStatus").enum)
    ended = {s for s in states.STATUSES if states.has_ended({"id": "job", "status": s})}
    assert ended == ENDED
    assert set(CODES.values()) <= set(model.shape_names)
    with pytest.raises(CloudRefused, match="paused, which this cloudft does not know"):
        states.to_job_state({"id": "job", "status": "paused", "created_at": 1}, "job", None)


def test_the_policy_names_the_grader_and_the_api(cli: Cli, tmp_path: Path) -> None:
    path = load(tmp_path / "job").path
    printed = cli("infra", "policy", path, "--inference", "--output", "json")
    assert printed.returncode == 0, printed.stderr
    api, grader = json.loads(printed.stdout)["Statement"]
    assert set(api["Action"]) == {*ACTIONS, INFERENCE_ACTION}
    assert api["Resource"] == "arn:aws:bedrock-mantle:us-west-2:*:project/*"
    assert "lambda:InvokeFunction" in grader["Action"] and grader["Resource"] == LAMBDA


def event(number: int, **data: Any) -> dict[str, Any]:
    return {
        "id": f"event-{number}",
        "created_at": 1_700_000_000 + number,
        "message": f"Step {number}",
        "type": "metrics" if data else "message",
        "data": data,
    }


EVENTS = [
    event(0),
    event(1, step=0, critic_rewards_mean=0.56, actor_entropy=1.5, response_length_mean=80),
    event(2, step=1, critic_rewards_mean=0.85, actor_pg_loss=0.02),
    event(3, step=1, valid_reward_mean=0.9),
    event(4, step=1, note="text is no figure"),
]


def test_rewards_are_a_curve_while_the_job_runs_and_in_its_files(tmp_path: Path) -> None:
    live = list(states.to_metrics(EVENTS))

    def key(point: Metric) -> tuple[Any, ...]:
        return point.step, point.split, point.loss

    assert sorted(map(key, live)) == [
        (0, "train", -0.56),
        (1, "train", 0.02),
        (1, "validation", -0.9),
    ]
    states.write_curves(EVENTS, tmp_path)
    assert sorted(map(key, read_metrics(tmp_path))) == sorted(map(key, live))
    rewards = {
        (point.step, point.split): getattr(point, "reward", None)
        for point in (*live, *read_metrics(tmp_path))
    }
    if "reward" in Metric.__dataclass_fields__:
        assert rewards == {(0, "train"): 0.56, (1, "train"): 0.85, (1, "validation"): 0.9}


def test_events_are_log_lines_behind_a_cursor() -> None:
    lines = list(states.log_lines(EVENTS, None))
    assert lines[1].text.endswith(
        "Step 1: step 0, critic_rewards_mean 0.56, actor_entropy 1.5, response_length_mean 80"
    )
    assert [line.cursor for line in states.log_lines(EVENTS, lines[2].cursor)] == [
        "event-3",
        "event-4",
    ]


class JobList:
    """An account that lists these jobs."""

    def __init__(self, region: str, jobs: list[dict[str, Any]]) -> None:
        self.region, self.jobs, self.requests = region, jobs, 0

    def paginate(self, *words: str, **options: Any) -> list[dict[str, Any]]:
        self.requests += 1
        return self.jobs


def test_a_running_job_keeps_its_grader() -> None:
    def job(name: str, status: str, function: str) -> dict[str, Any]:
        grader = {"type": "lambda", "lambda": {"function": function}}
        method = {"type": "reinforcement", "reinforcement": {"grader": grader}}
        return {"id": name, "status": status, "method": method}

    mine = "arn:aws:lambda:us-west-2:123456789012:function:g"
    jobs = [
        *(job(f"ftjob-{status}", status, mine) for status in states.STATUSES),
        job("ftjob-version", "running", f"{mine}:3"),
        job("ftjob-longer", "running", f"{mine}2"),
        {"id": "ftjob-unknown", "status": "running", "method": None},
    ]
    account = JobList("us-west-2", jobs)
    assert find_jobs_graded_by(account, mine) == [  # type: ignore[arg-type]
        *("ftjob-validating_files", "ftjob-queued", "ftjob-running", "ftjob-version"),
        "ftjob-unknown",
    ]
    elsewhere = JobList("eu-central-1", jobs)
    assert find_jobs_graded_by(elsewhere, mine) == []  # type: ignore[arg-type]
    assert (account.requests, elsewhere.requests) == (1, 0)
