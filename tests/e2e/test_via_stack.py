"""`submit --via-stack`: the account's own machine creates the job; every command knows of it."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from endpoint import BUCKET, ROLE, Endpoint
from job_files import write_job_file
from jobs_stack import PREFIX, SOON_S, Stack, deploy
from killing import HOOK
from processes import Cli

VIA = ("--backend", "bedrock", "--via-stack", "--output", "json")


@pytest.fixture(scope="module")
def fast(fast_account: Endpoint) -> Stack:
    return deploy(fast_account, "fast-jobs", MaxRunningJobs=0)


@pytest.fixture(scope="module")
def slow(slow_account: Endpoint) -> Stack:
    return deploy(slow_account, "slow-jobs", MaxRunningJobs=1)


@pytest.fixture
def job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Stack, str], Path]:
    def write(stack: Stack, name: str) -> Path:
        for variable, value in stack.endpoint.environ.items():
            monkeypatch.setenv(variable, value)
        machine = {"machine_arn": stack.outputs["JobMachineArn"]}
        return write_job_file(
            tmp_path / name,
            Path("titan-text-express"),
            name=name,
            records=[{"prompt": f"{name} {n}", "completion": "yes"} for n in range(4)],
            bedrock=stack.endpoint.section | machine,
            hyperparameters={"epochCount": 1, "batchSize": 1},
        )

    return write


def value(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def executions(stack: Stack, status: str | None = None) -> list[str]:
    client = stack.endpoint.client("stepfunctions")
    given = {"stateMachineArn": stack.outputs["JobMachineArn"]}
    found = client.list_executions(**given, **({"statusFilter": status} if status else {}))
    return [execution["executionArn"] for execution in found["executions"]]


def jobs(stack: Stack, name: str) -> list[Mapping[str, Any]]:
    bedrock = stack.endpoint.client("bedrock")
    found = bedrock.list_model_customization_jobs(nameContains=name, maxResults=1000)
    return list(found["modelCustomizationJobSummaries"])


def eventually(told: Callable[[], bool]) -> None:
    until = time.monotonic() + SOON_S
    while not told():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def busy(slow: Stack) -> Iterator[Callable[[], None]]:
    """The one place is taken, until this is called."""
    bedrock, name = slow.endpoint.client("bedrock"), f"busy-{time.monotonic_ns()}"
    slow.endpoint.client("s3").put_object(Bucket=BUCKET, Key=f"{PREFIX}/busy.jsonl", Body=b"{}\n")
    bedrock.create_model_customization_job(
        jobName=name,
        customModelName=name,
        roleArn=ROLE,
        baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
        trainingDataConfig={"s3Uri": f"s3://{BUCKET}/{PREFIX}/busy.jsonl"},
        outputDataConfig={"s3Uri": f"s3://{BUCKET}/{PREFIX}/busy/"},
    )

    def free() -> None:
        if jobs(slow, name)[0]["status"] == "InProgress":
            bedrock.stop_model_customization_job(jobIdentifier=name)
        eventually(lambda: jobs(slow, name)[0]["status"] == "Stopped")

    yield free
    free()


def test_a_job_completes_by_the_stack(
    cli: Cli, fast: Stack, job_file: Callable[[Stack, str], Path]
) -> None:
    path = job_file(fast, "whole")
    done = cli("submit", *VIA, "--wait", path)
    job = value(done)
    assert job["status"] == "Completed" and "Traceback" not in done.stderr
    [made] = jobs(fast, "whole")
    assert (made["jobName"], job["summary"]["arn"]) == (job["id"], made["jobArn"])
    [execution] = executions(fast)
    assert fast.end(execution)["status"] == "SUCCEEDED"
    assert {key.rpartition("/")[2] for key in fast.endpoint.objects() if job["id"] in key} >= {
        *("plan.json", "queued.json", "outcome.json")
    }
    assert (Path(job["artifacts"]) / "result.json").is_file()
    again = value(cli("submit", "--backend", "bedrock", "--output", "json", path))  # directly
    assert (again["id"], len(jobs(fast, "whole")), len(executions(fast))) == (job["id"], 1, 1)


def test_a_queued_job_is_told_as_queued_and_goes_its_way(
    cli: Cli, slow: Stack, job_file: Callable[[Stack, str], Path], busy: Callable[[], None]
) -> None:
    path = job_file(slow, "queued")
    job = value(cli("submit", *VIA, path))
    [execution] = executions(slow, "RUNNING")
    assert (job["status"], job["summary"]) == ("InProgress", {"queuedIn": execution})
    assert value(cli("submit", *VIA, path))["id"] == job["id"]
    shown = cli("status", job["id"])
    assert f"queued:     {execution}" in shown.stdout, shown.stdout + shown.stderr
    listed = {row["id"]: row["status"] for row in value(cli("list", "--output", "json"))}
    assert listed == {job["id"]: "InProgress"}
    assert "started: it creates the job" in cli("logs", job["id"]).stdout
    assert (jobs(slow, "queued"), executions(slow, "RUNNING")) == ([], [execution])
    busy()
    eventually(lambda: bool(jobs(slow, "queued")))
    there = value(cli("status", job["id"], "--output", "json"))
    assert there["status"] == "InProgress" and there["summary"]["arn"].startswith("arn:")
    assert cli("stop", job["id"]).returncode == 0
    assert value(cli("watch", job["id"], "--output", "json"), code=1)["status"] == "Stopped"
    assert slow.end(execution)["error"] == "JobStopped"
    assert len(jobs(slow, "queued")) == 1


def test_a_queued_job_that_is_stopped_is_never_made(
    cli: Cli, slow: Stack, job_file: Callable[[Stack, str], Path], busy: Callable[[], None]
) -> None:
    path = job_file(slow, "given-up")
    job = value(cli("submit", *VIA, path))
    assert cli("stop", job["id"]).returncode == 0
    assert cli("stop", job["id"]).returncode == 0
    stopped = value(cli("status", job["id"], "--output", "json"))
    assert (stopped["status"], stopped["failureMessage"]) == ("Stopped", None)
    busy()
    again = value(cli("submit", *VIA, path))
    assert again["id"] != job["id"]
    eventually(lambda: bool(jobs(slow, "given-up")))
    assert [made["jobName"] for made in jobs(slow, "given-up")] == [again["id"]]
    assert cli("stop", again["id"]).returncode == 0


def test_a_machine_that_gives_up_is_a_failed_job(
    cli: Cli, slow: Stack, job_file: Callable[[Stack, str], Path], busy: Callable[[], None]
) -> None:
    impatient = deploy(slow.endpoint, "impatient", MaxRunningJobs=1, QueueTries=0)
    done = cli("submit", *VIA, "--wait", job_file(impatient, "unlucky"))
    job = value(done, code=1)
    assert job["status"] == "Failed"
    assert job["failureMessage"].startswith("QueueFull: there was no place for the job")
    assert jobs(slow, "unlucky") == []


def test_a_submit_killed_at_the_start_is_one_job(
    cli: Cli, fast: Stack, job_file: Callable[[Stack, str], Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(HOOK)
    count = tmp_path / "calls"
    search = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    more = {"KILLED": "submit", "COUNT": str(count), "PYTHONPATH": search}

    def submit(path: Path, at: int, when: str) -> int:
        environ = os.environ | more | {"KILL_AT": str(at), "KILL_WHEN": when}
        words = [sys.executable, "-m", "cloudft", "submit", *VIA, path]
        return subprocess.run(words, env=environ, capture_output=True, check=False).returncode

    assert submit(job_file(fast, "counted"), 0, "never") == 0
    calls = count.read_text().splitlines()
    start = max(n for n, call in enumerate(calls) if call.startswith("PUT")) + 2
    assert calls[start - 1].startswith("POST")
    for when in ("before", "after"):
        name, known = f"killed-{when}", executions(fast)
        path = job_file(fast, name)
        assert submit(path, start, when) == -9
        assert len(executions(fast)) - len(known) == (when == "after")
        job = value(cli("submit", *VIA, "--wait", path))
        assert job["status"] == "Completed"
        assert (len(jobs(fast, name)), len(executions(fast)) - len(known)) == (1, 1)


def test_what_makes_no_sense_is_refused(
    cli: Cli, fast: Stack, job_file: Callable[[Stack, str], Path]
) -> None:
    path = job_file(fast, "senseless")
    assert cli("submit", "--via-stack", path).returncode == 2
    assert cli("submit", *VIA, "--queue", path).returncode == 2
    path.write_text(path.read_text().replace("machine_arn", "#"))
    without = cli("submit", *VIA, path)
    assert without.returncode == 3
    assert json.loads(without.stdout or without.stderr)["error"]["field"] == "bedrock.via_stack"


PAGE = Path(__file__).resolve().parents[2] / "docs" / "jobs-in-the-account.md"


def test_the_commands_of_the_page(
    cli: Cli, fast_account: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, given in fast_account.environ.items():
        monkeypatch.setenv(variable, given)
    model, hyper = Path("titan-text-express"), {"epochCount": 1, "batchSize": 1}
    section = {"region": "us-east-1", "stack": "team"}
    path = write_job_file(tmp_path, model, name="page", bedrock=section, hyperparameters=hyper)
    [block] = re.findall(r"^```console\n(.*?)^```", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    for line in block.splitlines():
        words = shlex.split(line.removeprefix("$ cloudft "))
        done = cli(*words[: words.index(">") if ">" in words else None])
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
    plan = json.loads(done.stdout)
    [stack] = fast_account.client("cloudformation").describe_stacks(StackName="team-jobs")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    made = Stack(fast_account, outputs, "")
    [execution] = executions(made)
    assert execution.endswith(f":team-jobs-machine:{plan['token']}")

    # another plan of the same data, as it is printed, by the bucket
    twice = ("--set", "hyperparameters.epochCount=2")
    printed = cli("plan", "--backend", "bedrock", "--output", "json", *twice).stdout
    bucket = plan["request"]["calls"][0]["parameters"]["Bucket"]
    key = "cloudft/plans/plan.json"
    fast_account.client("s3").put_object(Bucket=bucket, Key=key, Body=printed.encode())
    event = {"detail": {"bucket": {"name": bucket}, "object": {"key": key}}}
    assert made.end(made.start("drop", event, "PlanStarterArn"))["status"] == "SUCCEEDED"
    [dropped] = set(executions(made)) - {execution}
    assert made.end(dropped)["status"] == "SUCCEEDED"
    assert len(jobs(made, "page")) == 2

    path.write_text(path.read_text().replace("stack: team", "stack: nothing"))
    assert "there is no stack nothing" in cli("submit", *VIA, path).stderr
    assert cli("infra", "destroy", "team-jobs", "--yes").returncode == 0
    path.write_text(path.read_text().replace("stack: nothing", "stack: team"))
    refused = cli("submit", "--backend", "bedrock", "--via-stack", "--again", path)
    assert refused.returncode == 3 and "there is no stack team-jobs" in refused.stderr
