"""Jobs of Bedrock's OpenAI-compatible API: whatever fails, one file and one job are made."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import Endpoint, running_endpoint
from kill_at_aws_call import SITECUSTOMIZE
from processes import Cli

from cloudft.aws.client import AwsLocation, create_client

SUBMIT = ("submit", "--backend", "bedrock", "--output", "json")
ARN = "arn:aws:lambda:us-west-2:000000000000:function:grader"
UPLOAD, CREATE = "/v1/files", "/v1/fine_tuning/jobs"


@pytest.fixture(scope="module")
def endpoint(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    grader = tmp_path_factory.mktemp("grader") / "grader.py"
    grader.write_text("def lambda_handler(event, context): return []\n", encoding="utf-8")
    options = ("--clock", "fast", "--seconds", "1", "--jobs", "1000", "--grader", f"{ARN}={grader}")
    with running_endpoint(*options, "--stand-in", tiny_model) as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_REGION", "us-west-2")
    return endpoint


@pytest.fixture
def job_file(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A job of a name of its own: the endpoint is shared."""
    name = "".join(c if c.isalnum() else "-" for c in request.node.name)[-40:].strip("-")
    records = [
        {
            "messages": [{"role": "user", "content": f"{name}: {n} + 1?"}],
            "reference_answer": str(n + 1),
        }
        for n in range(100)
    ]
    lines = "".join(f"{json.dumps(record)}\n" for record in records)
    (tmp_path / "train.jsonl").write_text(lines, encoding="utf-8")
    spec = {
        "name": name,
        "base_model": "gpt-oss-20b",
        "customization_type": "REINFORCEMENT_FINE_TUNING",
        "data": {"train": "train.jsonl"},
        "reinforcement": {
            "lambda_arn": ARN,
            "hyperparameters": {"epochCount": 1},
        },
        "bedrock": {"region": "us-west-2"},
    }
    path = tmp_path / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec), encoding="utf-8")
    return path


def value(done: subprocess.CompletedProcess[str]) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def files_and_jobs(aws: Endpoint, job: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Return the ids of the job's files, and of those of its jobs that were not cancelled."""
    client: Any = create_client("bedrock-mantle", AwsLocation("us-west-2", None, aws.url))
    listed = client.get_paginator("list_files").paginate()
    name = f"{job['id']}.train.jsonl"
    files = [f["id"] for page in listed for f in page["data"] if f["filename"] == name]
    jobs = [
        one["id"]
        for page in client.get_paginator("list_fine_tuning_jobs").paginate()
        for one in page["data"]
        if one["training_file"] in files and one["status"] != "cancelled"
    ]
    return files, jobs


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("path", [UPLOAD, CREATE])
def test_a_submit_killed_at_a_call_is_one_job(
    cli: Cli, aws: Endpoint, job_file: Path, tmp_path: Path, path: str, when: str
) -> None:
    folder = tmp_path / "hook"
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE)
    hook = {"PYTHONPATH": str(folder), "KILLED": "submit", "KILL_AT": "1", "KILL_WHEN": when}
    killed = subprocess.run(
        [sys.executable, "-m", "cloudft", *SUBMIT, str(job_file)],
        env=os.environ | hook | {"COUNT": "", "KILL_TARGET": f"POST {aws.url}{path}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert killed.returncode == -9, killed.stderr
    [known] = value(cli("list", "--output", "json"))
    left = [t for t in value(cli("ps", "--output", "json"))["things"] if t["job"] == known["id"]]
    is_unused = (path, when) in ((UPLOAD, "after"), (CREATE, "before"))
    # The model of a job that has ended meanwhile is listed too.
    files = [one["kind"] for one in left if one["kind"] != "fine-tuned-model"]
    assert files == ["uploaded-file"] * is_unused
    created = (path, when) == (CREATE, "after")
    assert (known["status"] == "Failed") != created, known
    job = value(cli(*SUBMIT, job_file, "--wait"))
    assert (job["id"], job["status"]) == (known["id"], "Completed")
    files, jobs = files_and_jobs(aws, job)
    assert len(files) == len(jobs) == 1


@pytest.mark.parametrize("operation", ["CreateFile", "CreateFineTuningJob"])
@pytest.mark.parametrize("fault", ["drop", "throttle"])
def test_an_answer_that_does_not_come_makes_nothing_twice(
    cli: Cli, aws: Endpoint, job_file: Path, operation: str, fault: str
) -> None:
    aws.fault({"operation": operation, "do": fault, "times": 1})
    job = value(cli(*SUBMIT, job_file))
    files, jobs = files_and_jobs(aws, job)
    assert len(files) == len(jobs) == 1


def test_another_machine_adopts_the_job_of_the_same_file(
    cli: Cli, aws: Endpoint, job_file: Path, tmp_path: Path
) -> None:
    first = value(cli(*SUBMIT, job_file))
    second = value(cli(*SUBMIT, job_file, env=os.environ | {"CLOUDFT_HOME": str(tmp_path / "b")}))
    assert first["id"] == second["id"]
    files, jobs = files_and_jobs(aws, first)
    assert len(files) == len(jobs) == 1


def test_two_machines_at_once_leave_one_job(aws: Endpoint, job_file: Path, tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "cloudft", *SUBMIT, str(job_file)],
            env=os.environ | {"CLOUDFT_HOME": str(tmp_path / home)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for home in ("a", "b")
    ]
    ended = [process.communicate(timeout=60) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ended
    first, second = (json.loads(output) for output, _ in ended)
    assert first["id"] == second["id"]
    assert len(files_and_jobs(aws, first)[1]) == 1


def test_a_life_from_the_command_line(cli: Cli, aws: Endpoint, job_file: Path) -> None:
    checked = value(cli("check", job_file, "--backend", "bedrock", "--output", "json"))
    assert checked["ok"] and checked["findings"] == []
    before = len(aws.calls("CreateFineTuningJob"))
    value(cli(*SUBMIT, job_file, "--dry-run"))
    assert len(aws.calls("CreateFineTuningJob")) == before
    job = value(cli(*SUBMIT, job_file, "--wait"))
    name = job["id"]
    assert job["status"] == "Completed" and job["hyperParameters"] == {"epochCount": 1}
    assert value(cli(*SUBMIT, job_file))["id"] == name
    [listed] = value(cli("list", "--backend", "bedrock", "--output", "json"))
    assert (listed["id"], listed["status"]) == (name, "Completed")
    points = value(cli("metrics", name, "--output", "json"))
    assert [point["step"] for point in points] == list(range(100))
    log = cli("logs", name).stdout
    assert "Created fine-tuning job" in log and "New fine-tuned model created" in log
    generate = ("generate", name, "--prompt", "2 + 2?", "--max-new-tokens", "4", "--output", "json")
    answers = value(cli(*generate))
    assert answers and all(aws.environ["AWS_SECRET_ACCESS_KEY"] not in str(a) for a in answers)
    assert len(files_and_jobs(aws, job)[1]) == 1
    [model] = (t for t in value(cli("ps", "--output", "json"))["things"] if t["job"] == name)
    assert model["kind"] == "fine-tuned-model" and model["usd"]["perMonth"] == 1.95
    refused = cli("gc", model["id"], "--yes")
    assert refused.returncode == 2 and "no call for it is documented" in refused.stderr
    further = yaml.safe_load(job_file.read_text()) | {"base_model": f"job:{name}"}
    second = job_file.with_name("further.yaml")
    second.write_text(yaml.safe_dump(further), encoding="utf-8")
    refused = cli("check", second, "--backend", "bedrock")
    assert refused.returncode == 2 and "tunes base models" in refused.stderr, refused.stderr
    value(cli("delete", name, "--yes", "--output", "json"))


def test_a_running_job_is_stopped(cli: Cli, aws: Endpoint, job_file: Path) -> None:
    name = value(cli(*SUBMIT, job_file))["id"]
    value(cli("stop", name, "--output", "json"))
    watched = cli("watch", name, "--output", "json")
    assert (watched.returncode, json.loads(watched.stdout)["status"]) == (1, "Stopped")
    assert value(cli(*SUBMIT, job_file))["id"] != name  # a new attempt, as of every stopped job
