"""Bedrock's OpenAI-compatible API on the endpoint: files, jobs, lists, errors, a restart."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import endpoint as endpoints
import pytest
from botocore.exceptions import ClientError
from endpoint import AWS_KEYS, Endpoint, running_endpoint
from processes import wait_until
from urllib3 import encode_multipart_formdata

from cloudft.aws.client import AwsLocation, create_client

MODEL = "openai.gpt-oss-20b"
METHOD: dict[str, Any] = {
    "type": "reinforcement",
    "reinforcement": {
        "grader": {"type": "lambda", "lambda": {"function": "arn:aws:lambda:us-west-2:1:f:g"}},
        "hyperparameters": {"n_epochs": 1, "batch_size": 4},
    },
}
RECORDS = b"".join(
    json.dumps(
        {"messages": [{"role": "user", "content": f"What is {n} + 1?"}], "reference_answer": n + 1}
    ).encode()
    + b"\n"
    for n in range(100)
)


def openai_client(endpoint: Endpoint) -> Any:
    return create_client("bedrock-mantle", AwsLocation("us-west-2", None, endpoint.url))


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def client(endpoint: Endpoint) -> Any:
    return openai_client(endpoint)


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--stand-in", tiny_model) as made:
        yield made


def upload(client: Any, content: bytes = RECORDS, purpose: str = "fine-tune") -> str:
    form, content_type = encode_multipart_formdata(
        {"purpose": purpose, "file": ("train.jsonl", content)}
    )
    return str(client.create_file(form=form, content_type=content_type)["id"])


def wait_for_end(client: Any, job_id: str) -> Any:
    def ended() -> Any:
        job = client.get_fine_tuning_job(fine_tuning_job_id=job_id)
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None

    return wait_until(ended, "the job's end")


def create(client: Any, file_id: str) -> str:
    job = client.create_fine_tuning_job(model=MODEL, training_file=file_id, method=METHOD)
    return str(job["id"])


def test_a_job_is_trained_and_its_model_answers(client: Any) -> None:
    file_id = upload(client)
    assert client.get_file(file_id=file_id)["bytes"] == len(RECORDS)
    job_id = create(client, file_id)
    client.delete_file(file_id=file_id)  # the job has its own copy
    job = wait_for_end(client, job_id)
    assert (job["status"], job["training_file"]) == ("succeeded", file_id), job
    events = client.get_paginator("list_fine_tuning_events").paginate(
        fine_tuning_job_id=job_id, limit=7
    )
    listed = [event for page in events for event in page["data"]]
    metrics = [event["data"] for event in listed if event["type"] == "metrics"]
    assert [point["step"] for point in metrics] == list(range(99, -1, -1))
    assert len({event["id"] for event in listed}) == len(listed)
    [checkpoint] = client.list_fine_tuning_checkpoints(fine_tuning_job_id=job_id)["data"]
    assert checkpoint["metrics"]["train_loss"] == metrics[0]["train_loss"]
    model = job["fine_tuned_model"]
    assert {model, MODEL} <= {one["id"] for one in client.list_answering_models()["data"]}
    answer = client.create_inference(
        model=model, messages=[{"role": "user", "content": "2 + 2?"}], max_completion_tokens=4
    )
    assert answer["model"] == model and answer["choices"][0]["message"]["content"]
    with pytest.raises(ClientError, match="already completed"):
        client.cancel_fine_tuning_job(fine_tuning_job_id=job_id)


def test_data_that_bedrock_refuses_fails_the_job(client: Any) -> None:
    job = wait_for_end(client, create(client, upload(client, RECORDS.split(b"\n")[0])))
    assert job["status"] == "failed" and "100" in job["error"]["message"]
    events = client.list_fine_tuning_events(fine_tuning_job_id=job["id"])["data"]
    assert [event["level"] for event in events if event["level"] != "info"] == ["error"]


REFUSED: dict[str, tuple[dict[str, Any], str, str]] = {
    "another model": ({"model": "amazon.nova-lite-v1:0"}, "ValidationException", "fine-tuned"),
    "an unknown file": ({"training_file": "file-none"}, "ResourceNotFound", "No such File"),
    "no grader": ({"method": {"type": "reinforcement"}}, "ValidationException", "reinforcement"),
    "no epoch": (
        {
            "method": {
                "type": "reinforcement",
                "reinforcement": {
                    **METHOD["reinforcement"],
                    "hyperparameters": {"n_epochs": 0},
                },
            }
        },
        "ValidationException",
        "n_epochs",
    ),
}


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_a_request_that_bedrock_refuses_creates_no_job(endpoint: Endpoint, name: str) -> None:
    changed, code, words = REFUSED[name]
    client = openai_client(endpoint)
    client.meta.events.unregister("before-parameter-build")
    given = {"model": MODEL, "training_file": upload(client), "method": METHOD, **changed}
    before = len(client.list_fine_tuning_jobs()["data"])
    status, error = post(endpoint, "fine_tuning/jobs", json.dumps(given).encode())
    assert 400 <= status < 500 and words in error["message"], error
    assert len(client.list_fine_tuning_jobs()["data"]) == before
    if "method" not in changed:  # what botocore itself would not send
        with pytest.raises(ClientError, match=code):
            client.create_fine_tuning_job(**given)


def post(endpoint: Endpoint, path: str, body: bytes, **headers: str) -> tuple[int, dict[str, Any]]:
    headers = {"Content-Type": "application/json", "Authorization": "Bearer any", **headers}
    request = urllib.request.Request(f"{endpoint.url}/v1/{path}", body, headers)
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request)
    content = json.loads(caught.value.read())
    assert content["error"].keys() == {"message", "type", "param", "code"}
    return caught.value.code, content["error"]


def test_errors_have_openai_s_form(endpoint: Endpoint) -> None:
    suffix = {"model": MODEL, "training_file": "file-any", "method": METHOD, "suffix": "mine"}
    status, error = post(endpoint, "fine_tuning/jobs", json.dumps(suffix).encode())
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert error["message"] == "Unknown member suffix"
    assert post(endpoint, "responses", b"{}")[0] == 404
    assert post(endpoint, "files", b"x=1")[0] == 400
    assert post(endpoint, "fine_tuning/jobs", b"{}", Authorization="")[0] == 401


def test_a_running_job_and_its_files_survive_a_restart(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoints, "create_bucket_and_roles", lambda endpoint: None)
    options = ("--clock", "fast", "--seconds", "3", "--stand-in", tiny_model, "--state", tmp_path)
    with running_endpoint(*options) as endpoint:
        client = openai_client(endpoint)
        file_id = upload(client)
        running, cancelled = create(client, file_id), create(client, file_id)
        client.cancel_fine_tuning_job(fine_tuning_job_id=cancelled)
        assert wait_for_end(client, cancelled)["status"] == "cancelled"
    with running_endpoint(*options) as endpoint:
        client = openai_client(endpoint)
        assert [file["id"] for file in client.list_files()["data"]] == [file_id]
        jobs = client.list_fine_tuning_jobs()["data"]
        assert [job["id"] for job in jobs] == [cancelled, running]
        assert wait_for_end(client, running)["status"] == "succeeded"
