"""Ownership of resources, unreadable parts, and the caller's identity, on the command line."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import ACCOUNT, REGION, Endpoint, running_endpoint
from job_files import write_job_file
from processes import wait_until

from cloudft.aws import client
from cloudft.aws.client import AwsLocation
from cloudft.cli import errors
from cloudft.cli.main import cloudft

JSON = ("--output", "json")
SUBMIT = ("submit", "--backend", "bedrock")
BUCKET_STACK = """
Resources:
  DataBucket:
    Type: AWS::S3::Bucket
    DeletionPolicy: Retain
"""


@dataclass(frozen=True)
class Done:
    """A command that has run in this process."""

    code: int
    stdout: str
    stderr: str

    @property
    def value(self) -> Any:
        """Return its JSON."""
        return json.loads(self.stdout)


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Return a function that runs the command line in this process."""

    def run(*words: str | Path) -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["cloudft", *map(str, words)])
        monkeypatch.setattr(sys, "stdin", io.StringIO())
        code = errors.run_command(cloudft)
        said = capsys.readouterr()
        assert "Internal" not in said.out and "fault of cloudft" not in said.err, said.err
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast") as made:
        yield made


@pytest.fixture
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    endpoint.fault()
    return endpoint


def job_file(folder: Path, endpoint: Endpoint, name: str) -> Path:
    path = write_job_file(folder, Path("nova-micro"), name=name, bedrock=endpoint.bedrock_section)
    spec = yaml.safe_load(path.read_text()) | {"hyperparameters": {"epochCount": 1}}
    path.write_text(yaml.safe_dump(spec))
    return path


def kinds(resources: list[Any]) -> set[str]:
    return {resource["kind"] for resource in resources}


def test_gc_leaves_what_lives_what_is_another_homes_and_what_is_not_cloudfts(
    cli: Cli, aws: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = job_file(tmp_path / "job", aws, "kept")
    job = cli(*SUBMIT, path, "--wait", *JSON).value["id"]
    bedrock = aws.client("bedrock")
    serving = cli("deploy", job, "--yes", *JSON).value["id"]
    [model] = bedrock.list_custom_models(nameContains=job)["modelSummaries"]
    theirs = bedrock.create_custom_model_deployment(
        modelDeploymentName="theirs", modelArn=model["modelArn"]
    )["customModelDeploymentArn"]
    with monkeypatch.context() as other:
        other.setenv("CLOUDFT_HOME", str(tmp_path / "other-machine"))
        assert job in {one["id"] for one in cli("list", "--backend", "bedrock", *JSON).value}
        assert cli("gc", "--yes", *JSON).value["removed"] == []
        found = cli("gc", "--yes", "--live", *JSON).value
        assert found["removed"] == [] and {one["why"] for one in found["left"]} == {"another-home"}
    found = cli("gc", "--yes", *JSON).value
    assert kinds(found["removed"]) == {"data"}
    assert {one["why"] for one in found["left"]} == {"live"}
    refused = cli("gc", "theirs", "--yes")
    assert refused.code == 2 and "deployment theirs was not created by cloudft" in refused.stderr
    gone = cli("undeploy", job, "--yes", *JSON).value
    assert [resource["id"] for resource in gone] == [serving]
    refused = cli("undeploy", job, "--yes")
    assert refused.code == 2 and "theirs was not created by cloudft" in refused.stderr
    listed = bedrock.list_custom_model_deployments()["modelDeploymentSummaries"]
    assert [one["customModelDeploymentArn"] for one in listed] == [theirs]
    bedrock.delete_custom_model_deployment(customModelDeploymentIdentifier=theirs)
    assert cli("delete", job, "--yes").code == 0
    assert kinds(cli("gc", "--yes", *JSON).value["removed"]) == {"custom-model"}, "an orphan"


def test_a_submit_makes_one_client_a_service(
    cli: Cli, aws: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[tuple[str, AwsLocation | None]] = []
    real = client.create_client

    def counted(service: str, location: AwsLocation | None = None, **more: Any) -> Any:
        made.append((service, location))
        return real(service, location, **more)

    monkeypatch.setattr(client, "create_client", counted)
    path = job_file(tmp_path / "job", aws, "counted")
    assert cli(*SUBMIT, path, "--wait", *JSON).value["status"] == "Completed"
    services = [service for service, _ in made]
    assert {"bedrock", "s3", "sts", "iam"} <= set(services)
    assert sorted(services) == sorted(set(services)), "each is made once and used by every step"
    assert {location and location.endpoint_url for _, location in made} == {aws.url}


@pytest.fixture(scope="module")
def foreign_throughput(endpoint: Endpoint) -> str:
    """Create a provisioned throughput as another tool would; return its name."""
    bedrock, s3 = endpoint.client("bedrock"), endpoint.client("s3")
    record = {"prompt": "Where is it?", "completion": "Here."}
    body = "".join(json.dumps(record) + "\n" for _ in range(20)).encode()
    s3.put_object(Bucket="training-bucket", Key="theirs/train.jsonl", Body=body)
    bedrock.create_model_customization_job(
        jobName="theirs",
        customModelName="theirs",
        roleArn=endpoint.bedrock_section["role_arn"],
        baseModelIdentifier="amazon.titan-text-express-v1:0:8k",
        trainingDataConfig={"s3Uri": "s3://training-bucket/theirs/train.jsonl"},
        outputDataConfig={"s3Uri": "s3://training-bucket/theirs"},
    )

    def models() -> list[Any]:
        return list(bedrock.list_custom_models(nameContains="theirs")["modelSummaries"])

    wait_until(models, "the model is there")
    arn = models()[0]["modelArn"]
    bedrock.create_provisioned_model_throughput(
        provisionedModelName="there", modelId=arn, modelUnits=1
    )
    return "there"


@pytest.mark.parametrize(
    ("operation", "what"),
    [
        ("ListCustomModels", "bedrock: custom models"),
        ("ListCustomModelDeployments", "bedrock: deployments"),
        ("ListTrainingJobs", "sagemaker: jobs and their data"),
        ("ListTagsForResource", "bedrock: the tags of"),
    ],
)
@pytest.mark.parametrize(("fault", "code"), [("deny", 4), ("unavailable", 5)])
def test_what_could_not_be_read_is_said_and_the_rest_comes(
    cli: Cli,
    aws: Endpoint,
    foreign_throughput: str,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    what: str,
    fault: str,
    code: int,
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.0)
    aws.fault({"operation": operation, "do": fault, "times": 100})
    done = cli("ps", "--cost", *JSON)
    assert done.code == code
    assert foreign_throughput in {resource["name"] for resource in done.value["things"]}
    assert any(part["what"].startswith(what) for part in done.value["unavailable"])
    assert {part["exitCode"] for part in done.value["unavailable"]} == {code}
    assert done.value["usd"]["atLeast"] is True
    text = cli("ps", "--cost")
    assert text.code == code and "at least" in text.stdout and what in text.stderr
    swept = cli("gc", "--yes", "--live", "--all-homes", *JSON)
    assert swept.code == code and swept.value["unavailable"]


def test_a_list_without_its_account_is_no_empty_list(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "DEADLINE_S", 0.0)
    assert "no jobs yet" in cli("list").stdout
    with running_endpoint("--clock", "fast") as gone:
        for name, value in gone.environ.items():
            monkeypatch.setenv(name, value)
        job = cli(*SUBMIT, job_file(tmp_path / "job", gone, "far"), "--wait", *JSON).value
        gone.fault({"operation": "ListModelCustomizationJobs", "do": "deny"})
        assert cli("list").code == 4
        assert [one["status"] for one in cli("list", *JSON).value] == ["Completed"]
    done = cli("list", "--status", "Completed", *JSON)
    assert done.code == 5
    [listed] = done.value
    assert listed["id"] == job["id"] and listed["status"] is None
    assert listed["manifest"] == job["manifest"]
    assert listed["unavailable"]["code"] == "AwsUnreachable"
    text = cli("list")
    assert text.code == 5 and "unknown" in text.stdout and "no jobs yet" not in text.stdout
    assert text.stderr.count("can't read") == 1 and "bedrock in us-east-1" in text.stderr
    assert cli("status", "-").code == 5 and cli("ps").code == 5
    assert "no resources found in what could be read" in cli("ps").stdout


def test_all_calls_are_made_as_one_identity(
    cli: Cli, aws: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "planted-bearer-token")
    path = job_file(tmp_path / "job", aws, "one")
    done = cli(*SUBMIT, path, "--dry-run", *JSON)
    who = done.value["identity"]
    assert who["account"] == ACCOUNT and who["arn"].startswith("arn:aws:")
    assert who["credentialsFrom"] == "the environment" and who["profileFrom"] == "default"
    assert (who["region"], who["regionFrom"]) == (REGION, f"{path}:{line_of(path, 'region')}")
    assert who["unused"] == ["AWS_BEARER_TOKEN_BEDROCK"]
    assert f"in account {ACCOUNT}" in done.stderr
    assert "AWS_BEARER_TOKEN_BEDROCK is set and not used" in done.stderr
    started = cli(*SUBMIT, path, "--wait", *JSON)
    assert started.code == 0 and started.value["status"] == "Completed"
    assert who["arn"] in started.stderr, "beside the price"
    for words in (("ps",), ("models", "--live"), ("list", "--backend", "bedrock")):
        assert cli(*words).code == 0
    report = cli("doctor", *JSON).value
    assert report["facts"]["aws account"] == ACCOUNT
    assert report["facts"]["aws identity"] == who["arn"]
    assert report["facts"]["aws region"] == f"{REGION} (from AWS_REGION)"
    assert "BearerTokenUnused" in {finding["code"] for finding in report["findings"]}
    assert "planted-bearer-token" not in done.stdout + done.stderr + json.dumps(report)


def line_of(path: Path, name: str) -> int:
    lines = path.read_text().splitlines()
    return next(n for n, line in enumerate(lines, 1) if line.strip().startswith(f"{name}:"))


def make_stack(aws: Endpoint, name: str, tags: list[dict[str, str]], kind: str = "CREATE") -> str:
    """Create a stack as another tool would; return its bucket."""
    formation = aws.client("cloudformation")
    made = formation.create_change_set(
        StackName=name,
        ChangeSetName=f"theirs-{kind.lower()}",
        ChangeSetType=kind,
        TemplateBody=BUCKET_STACK,
        Tags=tags,
    )
    formation.execute_change_set(ChangeSetName=made["Id"])

    def settled() -> bool:
        [stack] = formation.describe_stacks(StackName=name)["Stacks"]
        return str(stack["StackStatus"]).endswith(f"{kind}_COMPLETE")

    wait_until(settled, "the stack is made")
    [bucket] = formation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    return str(bucket["PhysicalResourceId"])


def test_a_stack_that_cloudft_never_made_is_neither_changed_nor_removed(
    cli: Cli, aws: Endpoint
) -> None:
    bucket = make_stack(aws, "theirs", [{"Key": "team", "Value": "data"}])
    s3, formation = aws.client("s3"), aws.client("cloudformation")
    s3.put_object(Bucket=bucket, Key="precious", Body=b"x")
    for words in (
        ("deploy", "theirs", "--yes"),
        ("deploy", "theirs", "--dry-run"),
        ("deploy", "theirs", "--yes", "--no-protect"),
        ("destroy", "theirs", "--yes"),
        ("destroy", "theirs", "--yes", "--delete-data"),
        ("destroy", "theirs", "--yes", "--keep-data"),
    ):
        done = cli("infra", *words)
        assert done.code == 2 and "the stack theirs is not cloudft's" in done.stderr, words
        assert "update-stack --stack-name theirs --use-previous-template" in done.stderr
    assert cli("infra", "status", "theirs").code == 0, "it may be read"
    aws.fault(
        {"operation": "DetectStackDrift", "do": "deny"}, {"operation": "GetTemplate", "do": "deny"}
    )
    unread = cli("infra", "status", "theirs", *JSON)
    assert unread.code == 4 and unread.value["usdPerMonth"] is None
    assert [part["what"] for part in unread.value["unavailable"]] == [
        "the drift of theirs",
        "the template of theirs",
    ]
    [stack] = formation.describe_stacks(StackName="theirs")["Stacks"]
    assert stack["StackStatus"] == "CREATE_COMPLETE"
    formation.delete_stack(StackName="theirs")
    done = cli("infra", "destroy", "theirs", "--yes", "--delete-data")
    assert done.code == 4 and "there is no stack theirs" in done.stderr
    assert s3.get_object(Bucket=bucket, Key="precious")["Body"].read() == b"x"


def test_a_waiting_change_set_of_another_tool_stays(cli: Cli, aws: Endpoint) -> None:
    formation = aws.client("cloudformation")
    formation.create_change_set(
        StackName="waiting",
        ChangeSetName="theirs",
        ChangeSetType="CREATE",
        TemplateBody=BUCKET_STACK,
    )
    for words in (("deploy", "waiting", "--dry-run"), ("destroy", "waiting", "--yes")):
        assert cli("infra", *words).code == 2
    [left] = formation.list_change_sets(StackName="waiting")["Summaries"]
    assert left["ChangeSetName"] == "theirs"


def test_the_tag_makes_a_stack_cloudfts(cli: Cli, aws: Endpoint) -> None:
    make_stack(aws, "marked", [])
    make_stack(aws, "marked", [{"Key": "cloudft:infra", "Value": "base"}], "UPDATE")
    done = cli("infra", "deploy", "marked", "--dry-run", *JSON)
    assert done.code == 0 and done.value["changes"]
    assert cli("infra", "destroy", "marked", "--yes", "--delete-data").code == 0
