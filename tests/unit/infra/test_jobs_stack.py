"""infra/jobs.yaml: sound definitions; each way that a job can go ends rightly, with one job."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import AWS_KEYS, BUCKET, REGION, ROLE, Endpoint
from jobs_stack import (
    PREFIX,
    TIMEOUT_S,
    DeployedStack,
    deploy_machines,
    load_template,
    machine_definition,
    run_endpoint,
)
from jsonata import Jsonata
from statelint.config import Config
from statelint.linter import Linter

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.bedrock import state_machine

NUMBERS = itertools.count(1)
BASE = "amazon.titan-text-express-v1:0:8k"


MACHINES = {
    name: json.loads(machine_definition(name, defaultdict(lambda: 1)))
    for name, resource in load_template()["Resources"].items()
    if resource["Type"] == "AWS::StepFunctions::StateMachine"
}


def follows(state: Mapping[str, Any]) -> Iterator[str]:
    """Where a state can lead."""
    for rule in (state, *state.get("Choices", ()), *state.get("Catch", ())):
        if "Next" in rule:
            yield rule["Next"]
    if "Default" in state:
        yield state["Default"]


@pytest.mark.parametrize("name", MACHINES)
def test_each_state_is_reached_and_leads_somewhere(name: str) -> None:
    text = json.dumps(MACHINES[name])
    read, evaluated = (
        set(Linter.validate(text, Config(None, False, how))) for how in (False, True)
    )
    assert read & evaluated == set()  # what one alone finds is an expression taken for its value
    states = MACHINES[name]["States"]
    reached, open_ = set(), [MACHINES[name]["StartAt"]]
    while open_:
        state = open_.pop()
        if state not in reached:
            reached.add(state)
            open_ += follows(states[state])
    assert reached == states.keys()
    for state in states.values():
        assert state["Type"] in ("Succeed", "Fail") or list(follows(state))
        if state["Type"] == "Task":
            assert state["Catch"][-1]["ErrorEquals"] == ["States.ALL"]


@pytest.mark.parametrize("name", MACHINES)
def test_each_expression_is_jsonata(name: str) -> None:
    text = [MACHINES[name]["States"]]
    found = 0
    while text:
        value = text.pop()
        if isinstance(value, (dict, list)):
            text += value.values() if isinstance(value, dict) else value
        elif isinstance(value, str) and "{%" in value:
            assert value.startswith("{%") and value.endswith("%}"), value
            Jsonata(value[2:-2])
            found += 1
    assert found > 10


ALSO = {
    "MachineRole": {
        "bedrock:TagResource",  # the tags of what Create* makes
        "bedrock:StopModelCustomizationJob",  # .sync, when the execution is stopped
        "events:DescribeRule",  # .sync hears of the end by a rule
        "events:PutRule",
        "events:PutTargets",
        "iam:PassRole",
        "kms:CreateGrant",
        "kms:Decrypt",
        "kms:DescribeKey",
        "kms:GenerateDataKey",
    },
    "StarterRole": {"kms:Decrypt", "kms:GenerateDataKey"},
}
"""What a role is allowed beside the calls of its machine's tasks, and log delivery."""


def allowed(role: Mapping[str, Any]) -> set[str]:
    """Every action of a role's policies."""
    found = set()
    for policy in role["Properties"]["Policies"]:
        policy = policy.get("Fn::If", [None, policy])[1]
        for statement in policy["PolicyDocument"]["Statement"]:
            actions = statement["Action"]
            found |= {actions} if isinstance(actions, str) else set(actions)
    return found


@pytest.mark.parametrize(
    ("machine", "role"), [("JobMachine", "MachineRole"), ("PlanStarter", "StarterRole")]
)
def test_a_role_may_do_what_its_machine_does_and_no_more(machine: str, role: str) -> None:
    called = set()
    for state in MACHINES[machine]["States"].values():
        if state["Type"] == "Task":
            *_, service, operation = state["Resource"].split(":")
            service = {"sfn": "states"}.get(service, service)
            operation = operation.removesuffix(".sync")
            called.add(f"{service}:{operation[0].upper()}{operation[1:]}")
    actions = {a for a in allowed(load_template()["Resources"][role]) if not a.startswith("logs:")}
    assert actions == called | ALSO[role]


@pytest.fixture(scope="module")
def here(fast_account: Endpoint) -> Endpoint:
    return fast_account


@pytest.fixture(scope="module")
def slow(slow_account: Endpoint) -> Endpoint:
    return slow_account


@pytest.fixture(scope="module")
def stack(here: Endpoint) -> DeployedStack:
    return deploy_machines(here, "plain-jobs")


@dataclass(frozen=True)
class Planned:
    """A plan in the bucket: its token, where it lies (the machine's input), and its last call."""

    token: str
    place: Mapping[str, str]
    request: Mapping[str, Any]


DATA = f"s3://{BUCKET}/{PREFIX}/data/x/train.jsonl"


def plan(here: Endpoint, *, data: str = DATA, **more: Any) -> Planned:
    """Put a new plan, in the form of `cloudft plan`."""
    number = next(NUMBERS)
    token, name = f"{number:032x}", f"job-{number:08x}"
    s3 = here.client("s3")
    records = b'{"prompt":"a","completion":"b"}\n' * 8
    s3.put_object(Bucket=BUCKET, Key=f"{PREFIX}/data/x/train.jsonl", Body=records)
    parameters = {
        "jobName": name,
        "customModelName": name,
        "roleArn": ROLE,
        "clientRequestToken": token,
        "baseModelIdentifier": BASE,
        "customizationType": "FINE_TUNING",
        "hyperParameters": {"epochCount": "2", "learningRate": "0.00001"},
        "trainingDataConfig": {"s3Uri": data},
        "outputDataConfig": {"s3Uri": f"s3://{BUCKET}/{PREFIX}/jobs/{name}/output/"},
        "jobTags": [{"key": "cloudft:job", "value": name}],
        **more,
    }
    call = {"service": "bedrock", "operation": "create_model_customization_job"}
    content = {
        "backend": "bedrock",
        "token": token,
        "name": "job",
        "request": {"calls": [{"operation": "put_object"}, call | {"parameters": parameters}]},
    }
    key = f"{PREFIX}/plans/{name}.json"
    s3.put_object(Bucket=BUCKET, Key=key, Body=json.dumps(content))
    return Planned(token, {"bucket": BUCKET, "key": key}, parameters)


def create(here: Endpoint, planned: Planned) -> None:
    """Create a plan's job beside the machine, as `cloudft submit` does."""
    here.client("bedrock").create_model_customization_job(**planned.request)


def jobs(here: Endpoint, planned: Planned) -> list[dict[str, Any]]:
    """The jobs that were made from a plan."""
    bedrock = here.client("bedrock")
    found = bedrock.list_model_customization_jobs(maxResults=1000)["modelCustomizationJobSummaries"]
    reported = [bedrock.get_model_customization_job(jobIdentifier=job["jobArn"]) for job in found]
    return [job for job in reported if job["clientRequestToken"] == planned.token]


def stop(here: Endpoint, planned: Planned) -> None:
    """Stop the plan's job, as soon as it is there; returns when it has ended."""
    until = time.monotonic() + TIMEOUT_S
    while not (found := jobs(here, planned)) and time.monotonic() < until:
        time.sleep(0.02)
    here.client("bedrock").stop_model_customization_job(jobIdentifier=found[0]["jobArn"])
    while jobs(here, planned)[0]["status"] != "Stopped" and time.monotonic() < until:
        time.sleep(0.02)


def outcome(here: Endpoint, planned: Planned) -> dict[str, Any]:
    """What the machine has written beside the job's output."""
    key = f"{PREFIX}/jobs/{planned.request['jobName']}/outcome.json"
    content = here.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    return dict(json.loads(content))


def test_a_job_completes_and_its_outcome_is_kept(here: Endpoint, stack: DeployedStack) -> None:
    planned = plan(here, validationDataConfig={"validators": [{"s3Uri": DATA}]})
    end = stack.wait_for_end(execution := stack.start(planned.token, planned.place))
    assert end["status"] == "SUCCEEDED", end
    [job] = jobs(here, planned)
    assert job["hyperParameters"] == {"epochCount": "2", "learningRate": "0.00001"}
    tags = here.client("bedrock").list_tags_for_resource(resourceARN=job["jobArn"])["tags"]
    assert tags == [{"key": "cloudft:job", "value": job["jobName"]}]
    reported = outcome(here, planned)
    loss = job["trainingMetrics"]["trainingLoss"]
    assert reported["job"]["TrainingMetrics"] == {"TrainingLoss": loss}
    assert (reported["job"]["Status"], reported["serving"]) == ("Completed", {"Status": "NotAsked"})
    assert reported["execution"] == execution
    metrics = here.client("cloudwatch").list_metrics(Namespace="cloudft")["Metrics"]
    assert {m["MetricName"] for m in metrics} >= {"JobsCompleted", "TrainingLoss", "ValidationLoss"}
    assert stack.receive_messages() == []


def test_a_failed_job_says_why(here: Endpoint, stack: DeployedStack) -> None:
    planned = plan(here, data=f"s3://{BUCKET}/{PREFIX}/data/none/train.jsonl")
    end = stack.wait_for_end(stack.start(planned.token, planned.place))
    [job] = jobs(here, planned)
    assert job["status"] == "Failed"
    assert (end["status"], end["error"]) == ("FAILED", "JobFailed")
    assert job["failureMessage"] in end["cause"]
    assert outcome(here, planned)["job"]["FailureMessage"] == job["failureMessage"]
    [message] = stack.receive_messages()
    assert job["failureMessage"] in message


def test_a_stopped_job_is_reported_as_stopped(slow: Endpoint) -> None:
    stack, planned = deploy_machines(slow, "stopped-jobs"), plan(slow)
    execution = stack.start(planned.token, planned.place)
    stop(slow, planned)
    end = stack.wait_for_end(execution)
    assert (end["status"], end["error"]) == ("FAILED", "JobStopped")
    assert [job["status"] for job in jobs(slow, planned)] == ["Stopped"]
    assert outcome(slow, planned)["job"]["Status"] == "Stopped"
    assert stack.receive_messages() == []


@pytest.mark.parametrize("fault", ["throttle", "drop"])
def test_a_start_that_is_throttled_or_lost_is_one_job(
    here: Endpoint, stack: DeployedStack, fault: str
) -> None:
    here.fault({"operation": "CreateModelCustomizationJob", "do": fault, "times": 2})
    planned, requested = plan(here), len(here.calls("CreateModelCustomizationJob"))
    end = stack.wait_for_end(stack.start(planned.token, planned.place))
    assert end["status"] == "SUCCEEDED", end
    assert len(here.calls("CreateModelCustomizationJob")) - requested == 3
    assert len(jobs(here, planned)) == 1


by_counting_and_by_refusal = pytest.mark.parametrize("counts", [1, 0], ids=["counted", "refused"])
"""MaxRunningJobs 0 leaves it to Bedrock's refusal."""


@by_counting_and_by_refusal
def test_a_plan_waits_for_a_place(slow: Endpoint, counts: int) -> None:
    stack = deploy_machines(slow, f"waiting-{counts}", MaxRunningJobs=counts)
    busy, planned = plan(slow), plan(slow)
    create(slow, busy)
    execution = stack.start(planned.token, planned.place)
    stack.wait_for_state(execution, "WaitForRoom")
    assert jobs(slow, planned) == []
    stop(slow, busy)
    stop(slow, planned)
    assert stack.wait_for_end(execution)["error"] == "JobStopped"
    assert len(jobs(slow, planned)) == 1


@by_counting_and_by_refusal
def test_a_queue_that_stays_full_ends_without_a_job(
    slow: Endpoint, counts: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, given in AWS_KEYS.items():
        monkeypatch.setenv(name, given)
    stack = deploy_machines(slow, f"impatient-{counts}", MaxRunningJobs=counts, QueueTries=1)
    busy, planned = plan(slow), plan(slow)
    create(slow, busy)
    end = stack.wait_for_end(execution := stack.start(planned.token, planned.place))
    assert (end["status"], end["error"]) == ("FAILED", "QueueFull")
    assert ("ServiceQuotaExceeded" in end["cause"]) == (counts == 0)
    state = state_machine.describe_execution(
        Aws(AwsLocation(REGION, endpoint_url=slow.url)), execution, "x"
    )
    assert state is not None
    assert (state.status, state.failure_message) == ("Failed", f"QueueFull: {end['cause']}")
    assert jobs(slow, planned) == []
    assert [end["cause"]] == [message.partition("\n")[0] for message in stack.receive_messages()]
    stop(slow, busy)


def test_a_plan_that_is_started_twice_is_one_job(here: Endpoint, stack: DeployedStack) -> None:
    planned = plan(here)
    event = {"bucket": {"name": BUCKET}, "object": {"key": planned.place["key"]}}
    drops = [stack.start(name, {"detail": event}, "PlanStarterArn") for name in ("one", "two")]
    assert [stack.wait_for_end(drop)["status"] for drop in drops] == ["SUCCEEDED", "SUCCEEDED"]
    client = here.client("stepfunctions")
    with pytest.raises(ClientError, match="ExecutionAlreadyExists"):
        stack.start(planned.token, {**planned.place, "again": True})
    all_ = client.list_executions(stateMachineArn=stack.outputs["JobMachineArn"])["executions"]
    [execution] = [e["executionArn"] for e in all_ if e["name"] == planned.token]
    assert stack.wait_for_end(execution)["status"] == "SUCCEEDED"
    assert len(jobs(here, planned)) == 1


def test_a_job_that_is_there_already_is_followed(here: Endpoint, stack: DeployedStack) -> None:
    planned = plan(here)
    create(here, planned)
    execution = stack.start(planned.token, planned.place)
    assert stack.wait_for_end(execution)["status"] == "SUCCEEDED"
    assert "Train" not in stack.list_states(execution)
    assert len(jobs(here, planned)) == 1


def test_another_job_of_that_name_is_left_alone(here: Endpoint, stack: DeployedStack) -> None:
    other = plan(here)
    create(here, other)
    planned = plan(here, jobName=other.request["jobName"])
    end = stack.wait_for_end(stack.start(planned.token, planned.place))
    assert (end["status"], end["error"]) == ("FAILED", "NameTaken")
    assert (len(jobs(here, other)), jobs(here, planned)) == (1, [])
    assert len(stack.receive_messages()) == 1


@pytest.mark.parametrize(
    ("content", "error"),
    [(b"not JSON", "PlanNotRead"), (b"{}", "NotThePlan"), (None, "PlanNotRead")],
    ids=["no-json", "no-plan", "no-object"],
)
def test_what_is_no_plan_makes_no_job(
    here: Endpoint, stack: DeployedStack, content: bytes | None, error: str
) -> None:
    key = f"{PREFIX}/plans/{error}-{content is None}.json"
    if content is not None:
        here.client("s3").put_object(Bucket=BUCKET, Key=key, Body=content)
    requested = len(here.calls("CreateModelCustomizationJob"))
    end = stack.wait_for_end(stack.start(f"{next(NUMBERS):032x}", {"bucket": BUCKET, "key": key}))
    assert (end["status"], end["error"]) == ("FAILED", error)
    event = {"detail": {"bucket": {"name": BUCKET}, "object": {"key": key}}}
    dropped = stack.wait_for_end(stack.start(f"{next(NUMBERS)}", event, "PlanStarterArn"))
    assert dropped["error"] in ("PlanNotRead", "NotAPlan")
    assert all(key in message for message in stack.receive_messages())
    assert len(here.calls("CreateModelCustomizationJob")) == requested


def test_a_plan_under_another_name_is_refused(here: Endpoint, stack: DeployedStack) -> None:
    planned = plan(here)
    end = stack.wait_for_end(stack.start("f" * 32, planned.place))
    assert (end["error"], jobs(here, planned)) == ("NotThePlan", [])
    stack.receive_messages()


def test_a_model_is_served_for_its_time(here: Endpoint) -> None:
    serving = deploy_machines(here, "serving-jobs", Afterwards="deploy", KeepDeploymentHours=0.0003)
    planned = plan(here)
    end = serving.wait_for_end(execution := serving.start(planned.token, planned.place))
    assert end["status"] == "SUCCEEDED", end
    reported = outcome(here, planned)["serving"]
    assert reported["Status"] == "Active"
    [call] = here.calls("CreateCustomModelDeployment")
    assert call["modelDeploymentName"] == planned.request["jobName"]
    assert serving.list_states(execution)[-3:] == ["Keep", "TakeDown", "Done"]
    left = here.client("bedrock").list_custom_model_deployments()["modelDeploymentSummaries"]
    assert left == []


def test_a_model_that_is_not_good_enough_is_not_served(here: Endpoint) -> None:
    strict = deploy_machines(here, "strict-jobs", Afterwards="deploy", WorstValidationLoss=0.001)
    planned = plan(here, validationDataConfig={"validators": [{"s3Uri": DATA}]})
    requested = len(here.calls("CreateCustomModelDeployment"))
    assert strict.wait_for_end(strict.start(planned.token, planned.place))["status"] == "SUCCEEDED"
    assert outcome(here, planned)["serving"]["Status"] == "NotDeployed"
    assert len(here.calls("CreateCustomModelDeployment")) == requested


def test_an_execution_that_was_forgotten_finds_its_job_again(tmp_path: Path) -> None:
    kept = ("--state", str(tmp_path / "state"))
    with run_endpoint(*kept) as before:
        stack, planned = deploy_machines(before, "kept-jobs"), plan(before)
        assert (
            stack.wait_for_end(stack.start(planned.token, planned.place))["status"] == "SUCCEEDED"
        )
    command = [sys.executable, "-m", "cloudft", "endpoint", "-q", "--clock", "fast", *kept]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        after = replace(stack, endpoint=Endpoint(process.stdout.readline().strip()))
        assert len(jobs(after.endpoint, planned)) == 1
        execution = after.start(planned.token, planned.place)
        assert after.wait_for_end(execution)["status"] == "SUCCEEDED"
        assert "Train" not in after.list_states(execution)
        assert len(jobs(after.endpoint, planned)) == 1
        process.terminate()
