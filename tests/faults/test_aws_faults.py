"""AWS throttles, drops answers, expires credentials, is full: one job, and an honest exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from endpoint import Endpoint, running_endpoint
from job_files import write_job_file
from processes import Cli, wait_until

CALLS = (
    "CreateModelCustomizationJob",
    "GetModelCustomizationJob",
    "ListModelCustomizationJobs",
    "ListFoundationModels",
)


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--seconds", "1.5") as endpoint:
        for name, value in endpoint.environ.items():
            monkeypatch.setenv(name, value)
        yield endpoint


def job_file(folder: Path, endpoint: Endpoint, name: str = "faulty") -> Path:
    return write_job_file(
        folder,
        Path("titan-text-lite"),
        name=name,
        bedrock=endpoint.bedrock_section,
        records=4,
        hyperparameters={"epochCount": 1, "batchSize": 1},
    )


def jobs_of(endpoint: Endpoint) -> list[Any]:
    listed = endpoint.client("bedrock").list_model_customization_jobs()
    return list(listed["modelCustomizationJobSummaries"])


def value(done: Any) -> Any:
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("fault", ["drop", "throttle", "unavailable"])
def test_a_call_that_fails_in_passing_makes_no_second_job(
    cli: Cli, aws: Endpoint, tmp_path: Path, fault: str
) -> None:
    path = job_file(tmp_path / "job", aws)
    aws.fault(*({"operation": name, "do": fault, "times": 2} for name in CALLS))
    words = ("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    assert value(cli(*words, timeout=120))["status"] == "Completed"
    assert len(jobs_of(aws)) == 1


def test_expired_credentials_end_a_submit_and_a_new_login_goes_on_with_it(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    path = job_file(tmp_path / "job", aws)
    aws.fault({"operation": "CreateModelCustomizationJob", "do": "expire"})
    words = ("submit", "--backend", "bedrock", path, "--output", "json")
    done = cli(*words)
    assert done.returncode == 4
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "CredentialsExpired" and "aws sso login" in error["fix"]
    assert jobs_of(aws) == []
    job = value(cli(*words))
    assert [summary["jobName"] for summary in jobs_of(aws)] == [job["id"]]


def test_watching_goes_on_when_credentials_expire(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    path = job_file(tmp_path / "job", aws)
    aws.fault({"operation": "GetModelCustomizationJob", "do": "expire", "skip": 5, "times": 2})
    done = cli("submit", "--backend", "bedrock", path, "--wait", "--output", "json")
    assert value(done)["status"] == "Completed"
    assert done.stderr.count("aws sso login") == 1


def test_what_hinders_the_first_look_loses_no_job(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    """Fail the first description: before its creation a job is looked for twice."""
    path = job_file(tmp_path / "job", aws)
    order = {"operation": "GetModelCustomizationJob", "do": "expire", "skip": 2, "times": 2}
    words = ("submit", "--backend", "bedrock", path, "--output", "json")
    aws.fault(order)
    done = cli(*words, "--wait")
    assert value(done)["status"] == "Completed" and done.stderr.count("aws sso login") == 1
    remedies = {"expire": "aws sso login", "deny": "grant bedrock:GetModelCustomizationJob"}
    for fault, remedy in remedies.items():
        seen = len(jobs_of(aws))  # each of them is looked at first
        aws.fault(order | {"do": fault, "skip": seen + 2, "times": 1})
        again = cli(*words, "--force-new")
        job = value(again)
        assert f"{job['id']} was created, but" in again.stderr and remedy in again.stderr
        assert job["id"] in [summary["jobName"] for summary in jobs_of(aws)]
    assert len(jobs_of(aws)) == 3 == len(value(cli("list", "--output", "json")))


def test_two_command_lines_at_once_are_one_job(aws: Endpoint, tmp_path: Path) -> None:
    path = job_file(tmp_path / "job", aws)
    ids: list[str] = []

    def submit(home: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "cloudft", "submit", "--backend", "bedrock", str(path)],
            env=os.environ | {"CLOUDFT_HOME": str(tmp_path / home)},
            capture_output=True,
            text=True,
            check=True,
        )
        ids.append(done.stdout.strip())

    threads = [threading.Thread(target=submit, args=(home,)) for home in ("a", "a", "b", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 4 and len(set(ids)) == 1
    assert [summary["jobName"] for summary in jobs_of(aws)] == ids[:1]


def test_a_full_account_refuses_and_the_queue_waits(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        value(cli("submit", "--backend", "bedrock", job_file(tmp_path / name, aws, name), "-ojson"))
    path = job_file(tmp_path / "three", aws, "three")
    full = cli("submit", "--backend", "bedrock", path)
    if full.returncode != 0:  # the first two may have ended already
        assert full.returncode == 5 and "quota" in full.stderr
    words = ("submit", "--backend", "bedrock", path, "--queue", "--wait", "--output", "json")
    assert value(cli(*words))["status"] == "Completed"
    assert len(jobs_of(aws)) == 3


def test_a_stop_that_was_answered_to_nobody_stops(cli: Cli, aws: Endpoint, tmp_path: Path) -> None:
    path = job_file(tmp_path / "job", aws)
    job = value(cli("submit", "--backend", "bedrock", path, "--output", "json"))
    aws.fault({"operation": "StopModelCustomizationJob", "do": "drop"})
    assert cli("stop", job["id"]).returncode == 0
    wait_until(lambda: jobs_of(aws)[0]["status"] == "Stopped", "it has stopped")
    again = value(cli("submit", "--backend", "bedrock", path, "--wait", "--output", "json"))
    assert again["id"] != job["id"] and again["status"] == "Completed"
