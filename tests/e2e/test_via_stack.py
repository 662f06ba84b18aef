"""`submit --via-state-machine`: the account creates the job, and every command finds it."""

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

import click
import pytest
from cli_commands import find_command
from endpoint import BUCKET, ROLE, Endpoint
from job_files import write_job_file
from jobs_stack import PREFIX, TIMEOUT_S, DeployedStack, deploy_machines
from kill_at_aws_call import SITECUSTOMIZE
from processes import Cli

VIA = ("--backend", "bedrock", "--via-state-machine", "--output", "json")


@pytest.fixture(scope="module")
def fast(fast_account: Endpoint) -> DeployedStack:
    return deploy_machines(fast_account, "fast-jobs", MaxRunningJobs=0)


@pytest.fixture(scope="module")
def slow(slow_account: Endpoint) -> DeployedStack:
    return deploy_machines(slow_account, "slow-jobs", MaxRunningJobs=1)


@pytest.fixture
def job_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[DeployedStack, str], Path]:
    def write(stack: DeployedStack, name: str) -> Path:
        for variable, value in stack.endpoint.environ.items():
            monkeypatch.setenv(variable, value)
        machine = {"machine_arn": stack.outputs["JobMachineArn"]}
        return write_job_file(
            tmp_path / name,
            Path("titan-text-express"),
            name=name,
            records=[{"prompt": f"{name} {n}", "completion": "yes"} for n in range(4)],
            bedrock=stack.endpoint.bedrock_section | machine,
            hyperparameters={"epochCount": 1, "batchSize": 1},
        )

    return write


def value(done: Any, code: int = 0) -> Any:
    assert done.returncode == code, done.stderr + done.stdout
    return json.loads(done.stdout)


def executions(stack: DeployedStack, status: str | None = None) -> list[str]:
    client = stack.endpoint.client("stepfunctions")
    given = {"stateMachineArn": stack.outputs["JobMachineArn"]}
    found = client.list_executions(**given, **({"statusFilter": status} if status else {}))
    return [execution["executionArn"] for execution in found["executions"]]


def jobs(stack: DeployedStack, name: str) -> list[Mapping[str, Any]]:
    bedrock = stack.endpoint.client("bedrock")
    found = bedrock.list_model_customization_jobs(nameContains=name, maxResults=1000)
    return list(found["modelCustomizationJobSummaries"])


def eventually(reported: Callable[[], bool]) -> None:
    until = time.monotonic() + TIMEOUT_S
    while not reported():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.fixture
def busy(slow: DeployedStack) -> Iterator[Callable[[], None]]:
    """The one place is taken, until this is called."""
    bedrock, name = slow.endpoint.client("bedrock"), f"busy-{time.monotonic_ns()}"
    record = b'{"prompt": "Hi", "completion": "Hi"}\n'
    slow.endpoint.client("s3").put_object(Bucket=BUCKET, Key=f"{PREFIX}/busy.jsonl", Body=record)
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


def test_a_queued_job_is_reported_as_queued_and_goes_its_way(
    cli: Cli,
    slow: DeployedStack,
    job_file: Callable[[DeployedStack, str], Path],
    busy: Callable[[], None],
) -> None:
    path = job_file(slow, "queued")
    done = cli("submit", *VIA, path)
    first = value(done)
    assert "InProgress, queued in the account: " in done.stderr
    [execution] = executions(slow, "RUNNING")
    assert (first["status"], first["summary"]) == ("InProgress", {"queuedIn": execution})
    shown = cli("status", first["id"])
    assert f"queued:     {execution}" in shown.stdout, shown.stdout + shown.stderr
    listed = {row["id"]: row["status"] for row in value(cli("list", "--output", "json"))}
    assert listed == {first["id"]: "InProgress"}
    assert (jobs(slow, "queued"), executions(slow, "RUNNING")) == ([], [execution])

    assert cli("stop", first["id"]).returncode == 0  # it is never made
    stopped = value(cli("status", first["id"], "--output", "json"))
    assert (stopped["status"], stopped["failureMessage"]) == ("Stopped", None)
    second = value(cli("submit", *VIA, path))
    assert second["id"] != first["id"]
    assert value(cli("submit", *VIA, path))["id"] == second["id"]
    [execution] = executions(slow, "RUNNING")

    busy()
    eventually(lambda: bool(jobs(slow, "queued")))
    assert cli("stop", second["id"]).returncode == 0
    assert value(cli("watch", second["id"], "--output", "json"), code=1)["status"] == "Stopped"
    assert slow.wait_for_end(execution)["error"] == "JobStopped"
    assert [made["jobName"] for made in jobs(slow, "queued")] == [second["id"]]


def test_a_submit_killed_when_the_machine_is_started_is_one_job(
    cli: Cli, fast: DeployedStack, job_file: Callable[[DeployedStack, str], Path], tmp_path: Path
) -> None:
    (tmp_path / "sitecustomize.py").write_text(SITECUSTOMIZE)
    path, known = job_file(fast, "killed"), executions(fast)
    search = f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    killed = {"KILLED": "submit", "COUNT": "", "KILL_TARGET": "StartExecution", "KILL_AT": "1"}
    environ = os.environ | killed | {"KILL_WHEN": "after", "PYTHONPATH": search}
    words = [sys.executable, "-m", "cloudft", "submit", *VIA, path]
    assert subprocess.run(words, env=environ, capture_output=True, check=False).returncode == -9
    assert len(executions(fast)) - len(known) == 1
    assert value(cli("submit", *VIA, "--wait", path))["status"] == "Completed"
    assert (len(jobs(fast, "killed")), len(executions(fast)) - len(known)) == (1, 1)


def test_what_makes_no_sense_is_refused(
    cli: Cli, fast: DeployedStack, job_file: Callable[[DeployedStack, str], Path]
) -> None:
    path = job_file(fast, "senseless")
    for words in (("--via-state-machine",), (*VIA, "--queue")):
        with pytest.raises(click.UsageError, match=r"state.machine"):
            find_command(("submit",)).main([*words, str(path)], standalone_mode=False)
    path.write_text(path.read_text().replace("machine_arn", "#"))
    without = cli("submit", *VIA, path)
    assert without.returncode == 3
    assert json.loads(without.stdout)["error"]["field"] == "bedrock.via_stack"


PAGE = Path(__file__).resolve().parents[2] / "docs" / "how-to" / "queue-jobs-in-the-account.md"


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
    [made_here] = value(cli("list", "--output", "json"))
    assert made_here["status"] == "Completed"
    assert (Path(made_here["artifacts"]) / "result.json").is_file()
    [stack] = fast_account.client("cloudformation").describe_stacks(StackName="team-jobs")["Stacks"]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    made = DeployedStack(fast_account, outputs, "")
    [execution] = executions(made)
    assert re.search(rf":cloudft-[0-9a-f-]+-machine:{plan['token']}$", execution)
    *_, own, _ = (call["parameters"] for call in plan["request"]["calls"])
    there = fast_account.client("s3").list_objects_v2(
        Bucket=own["Bucket"], Prefix=own["Key"].removesuffix("plan.json")
    )
    names = {item["Key"].rpartition("/")[2] for item in there["Contents"]}
    assert names >= {"plan.json", "queued.json", "outcome.json"}

    # another plan of the same data, as it is printed, by the bucket
    twice = ("--set", "hyperparameters.epochCount=2")
    printed = cli("plan", "--backend", "bedrock", "--output", "json", *twice).stdout
    bucket = plan["request"]["calls"][0]["parameters"]["Bucket"]
    key = "cloudft/plans/plan.json"
    fast_account.client("s3").put_object(Bucket=bucket, Key=key, Body=printed.encode())
    event = {"detail": {"bucket": {"name": bucket}, "object": {"key": key}}}
    assert made.wait_for_end(made.start("drop", event, "PlanStarterArn"))["status"] == "SUCCEEDED"
    [dropped] = set(executions(made)) - {execution}
    assert made.wait_for_end(dropped)["status"] == "SUCCEEDED"
    assert len(jobs(made, "page")) == 2

    assert cli("infra", "destroy", "team-jobs", "--yes").returncode == 0
    refused = cli("submit", "--backend", "bedrock", "--via-state-machine", "--force-new", path)
    assert refused.returncode == 3 and "there is no stack team-jobs" in refused.stderr
