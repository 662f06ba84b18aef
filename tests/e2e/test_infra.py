"""The AWS side from the command line: created, used by a job, described, removed, interrupted."""

from __future__ import annotations

import functools
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from base_stack import ALL_OPTIONS, list_permissions, policy_statements, without_action
from botocore.exceptions import ClientError
from endpoint import ACCOUNT, REGION, SAGEMAKER_TRUST, Endpoint, new_client, running_endpoint
from job_files import write_job_file
from processes import wait_until

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends import make_backend
from cloudft.backends.bedrock import permission_checks as simulated
from cloudft.backends.bedrock import preflight, request, required_permissions, stack
from cloudft.backends.bedrock.caller_policy import caller_policy
from cloudft.backends.findings import FindingFactory
from cloudft.cli import errors
from cloudft.cli.main import cloudft
from cloudft.endpoint.iam.authorizer import PolicyAuthorizer, RoleClientFactory
from cloudft.endpoint.iam.policies import AccessRequest, evaluate_policies
from cloudft.infra import template as templates
from cloudft.jobs import model_import
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home

PARAMS = [word for item in ALL_OPTIONS.items() for word in ("--param", "=".join(item))]
JSON = ("--output", "json")


@dataclass(frozen=True)
class Done:
    """A command that has run in this process."""

    returncode: int
    stdout: str
    stderr: str


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """The command line without a process of its own: there are many calls here."""

    def run(*words: str | Path, answer: str = "") -> Done:
        capsys.readouterr()
        arguments = [str(word) for word in words]
        monkeypatch.setattr(sys, "argv", ["cloudft", *arguments])
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        code = errors.run_command(cloudft)
        said = capsys.readouterr()
        return Done(code, said.out, said.err)

    return run


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--authorization") as made:
        yield made


@pytest.fixture(autouse=True)
def aws(endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> Endpoint:
    for name, value in endpoint.environ.items():
        monkeypatch.setenv(name, value)
    endpoint.fault()
    return endpoint


def reported(done: Done | subprocess.CompletedProcess[str], code: int = 0) -> Any:
    assert done.returncode == code, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def team(endpoint: Endpoint) -> dict[str, str]:
    """A stack with everything in it; its outputs."""
    command = [sys.executable, "-m", "cloudft", "infra", "deploy", "team", "--yes", *JSON, *PARAMS]
    environ = os.environ | endpoint.environ
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environ)
    outputs: dict[str, str] = reported(done)["stack"]["outputs"]
    return outputs


def job_file(folder: Path, name: str, model: str = "nova-micro", **more: Any) -> Path:
    """A job file that names nothing of AWS but a stack."""
    path = write_job_file(folder, Path(model), name=name, hyperparameters={}, **more)
    spec = yaml.safe_load(path.read_text())
    spec["hyperparameters"] = {}
    spec["bedrock"] = {"stack": "team"} | spec.get("bedrock", {})
    path.write_text(yaml.safe_dump(spec))
    return path


def test_a_stack_a_job_and_nothing_left(
    cli: Cli, aws: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = resources_of(aws)
    shown = reported(cli("infra", "deploy", "once", "--dry-run", *JSON))
    assert shown["executed"] is False and len(shown["changes"]) > 20
    assert cli("infra", "deploy", "once", answer="n\n").stdout.endswith("none executed\n")
    assert cli("infra", "deploy", "once", answer="").returncode == 130
    assert resources_of(aws) == before
    assert cli("infra", "status", "once").returncode == 4, "the empty stack is gone, too"
    names = [s["StackName"] for s in aws.client("cloudformation").describe_stacks()["Stacks"]]
    assert "once" not in names, "no change set was left, and no stack for it"
    done = cli("infra", "deploy", "once", "--yes", *JSON)
    made = reported(done)
    assert made["stack"]["status"] == "CREATE_COMPLETE"
    assert "CREATE_COMPLETE" in done.stderr and "cost per month" in done.stderr
    again = cli("infra", "deploy", "once", "--yes")
    assert again.stdout == "once: nothing to change\n"
    path = job_file(tmp_path / "job", "in-a-stack", bedrock={"stack": "once"})
    job = reported(cli("submit", path, "--backend", "bedrock", "--wait", *JSON))
    assert job["status"] == "Completed"
    other = tmp_path / "other-machine"
    monkeypatch.setenv("CLOUDFT_HOME", str(other))
    listed = reported(cli("list", "--backend", "bedrock", *JSON))
    assert job["id"] in {one["id"] for one in listed}
    same = reported(cli("submit", path, "--backend", "bedrock", *JSON))
    assert same["id"] == job["id"], "the same job from another machine"
    assert len(aws.calls("CreateModelCustomizationJob")) == 1
    refused = cli("infra", "destroy", "once", "--yes")
    assert refused.returncode == 2 and "models need the key" in refused.stderr
    remove_models(aws)
    refused = cli("infra", "destroy", "once", "--yes")
    assert refused.returncode == 2 and "hold objects" in refused.stderr
    assert "--delete-data" in refused.stderr and "--keep-data" in refused.stderr
    ended = reported(cli("infra", "destroy", "once", "--yes", "--delete-data", *JSON))
    assert len(ended["resources"]) == 4
    assert resources_of(aws) == before
    gone = cli("infra", "destroy", "once", "--yes")
    assert gone.returncode == 4 and "there is no stack once" in gone.stderr


def remove_models(aws: Endpoint) -> None:
    bedrock = aws.client("bedrock")
    for model in bedrock.list_custom_models()["modelSummaries"]:
        bedrock.delete_custom_model(modelIdentifier=model["modelArn"])


def resources_of(aws: Endpoint) -> dict[str, set[str]]:
    """Everything that the template makes, by the services' own lists."""
    kms = aws.client("kms")
    keys = [kms.describe_key(KeyId=k["KeyId"])["KeyMetadata"] for k in kms.list_keys()["Keys"]]
    iam, ec2 = aws.client("iam"), aws.client("ec2")
    logs, events = aws.client("logs"), aws.client("events")
    policies = iam.list_policies(Scope="Local")["Policies"]
    groups = ec2.describe_security_groups()["SecurityGroups"]
    return {
        "buckets": {b["Name"] for b in aws.client("s3").list_buckets()["Buckets"]},
        "keys": {k["KeyId"] for k in keys if k["KeyState"] == "Enabled"},
        "roles": {r["RoleName"] for r in iam.list_roles()["Roles"]},
        "policies": {p["PolicyName"] for p in policies},
        "providers": {
            str(p) for p in iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        },
        "topics": {t["TopicArn"] for t in aws.client("sns").list_topics()["Topics"]},
        "log groups": {g["logGroupName"] for g in logs.describe_log_groups()["logGroups"]},
        "log policies": {
            p["policyName"] for p in logs.describe_resource_policies()["resourcePolicies"]
        },
        "rules": {r["Name"] for r in events.list_rules()["Rules"]},
        "functions": {
            f["FunctionName"] for f in aws.client("lambda").list_functions()["Functions"]
        },
        "alarms": {
            a["AlarmName"] for a in aws.client("cloudwatch").describe_alarms()["MetricAlarms"]
        },
        "networks": {v["VpcId"] for v in ec2.describe_vpcs()["Vpcs"]},
        "groups": {g["GroupId"] for g in groups},
        "endpoints": {e["VpcEndpointId"] for e in ec2.describe_vpc_endpoints()["VpcEndpoints"]},
    }


def loaded(path: Path, endpoint: Endpoint) -> tuple[LoadedJob, Aws]:
    aws = Aws(AwsLocation(REGION, None, endpoint.url))
    job = load_job(path, environ={"AWS_REGION": REGION, "AWS_ENDPOINT_URL": endpoint.url})
    return stack.with_stack_defaults(job, aws), aws


def kind_of(action: str) -> dict[str, Any]:
    """What of a job file needs that action of the role."""
    if action.startswith("lambda:"):
        grader = ALL_OPTIONS["GraderFunctionArn"]
        kind = "REINFORCEMENT_FINE_TUNING"
        return {
            "model": "nova-2-lite",
            "customization_type": kind,
            "reinforcement": {"lambda_arn": grader},
        }
    teacher = ALL_OPTIONS["TeacherModelArns"]
    return {"customization_type": "DISTILLATION", "distillation": {"teacher": teacher}}


@pytest.fixture(scope="module")
def needy(
    endpoint: Endpoint, team: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> tuple[tuple[LoadedJob, Aws], ...]:
    """A job with a teacher, and one with a grader; both in the stack's network."""
    folders = (tmp_path_factory.mktemp("teacher"), tmp_path_factory.mktemp("grader"))
    kinds = (kind_of("bedrock:InvokeModel"), kind_of("lambda:InvokeFunction"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in endpoint.environ.items():
            patch.setenv(name, value)
        return tuple(
            loaded(job_file(folder, "needy", **kind), endpoint)
            for folder, kind in zip(folders, kinds, strict=True)
        )


@pytest.mark.parametrize(
    ("sid", "action"),
    list_permissions(policy_statements(ALL_OPTIONS, "BedrockRole")),
    ids=lambda word: word,
)
def test_a_permission_that_the_role_lacks_is_named_and_no_other(
    aws: Endpoint,
    team: dict[str, str],
    needy: tuple[tuple[LoadedJob, Aws], ...],
    sid: str,
    action: str,
) -> None:
    job, account = needy[action.startswith("lambda:")]
    iam, role = aws.client("iam"), team["BedrockRoleArn"].rpartition("/")[2]
    for name in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
        if sid in {statement["Sid"] for statement in document["Statement"]}:
            break
    left = {**document, "Statement": without_action(document["Statement"], sid, action)}
    if left["Statement"]:
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=json.dumps(left))
    else:
        iam.delete_role_policy(RoleName=role, PolicyName=name)
    try:
        found = list(simulated.check_role_permissions(job, account, FindingFactory(job)))
    finally:
        whole = json.dumps(document)
        iam.put_role_policy(RoleName=role, PolicyName=name, PolicyDocument=whole)
    named = {finding.message.split(" on ")[0] for finding in found}
    assert named == {f"the role may not {action}"}
    assert all(f'"Action": "{action}"' in finding.fix for finding in found)


def test_check_finds_nothing_wrong_with_a_job_of_the_stack(
    cli: Cli, team: dict[str, str], tmp_path: Path
) -> None:
    path = job_file(tmp_path, "sound")
    checked = reported(cli("check", path, "--backend", "bedrock", *JSON))
    assert checked["findings"] == []
    plan = reported(cli("plan", path, "--backend", "bedrock", *JSON))
    create = plan["request"]["calls"][-1]["parameters"]
    assert create["roleArn"] == team["BedrockRoleArn"]
    assert create["customModelKmsKeyId"] == team["KeyArn"]
    assert create["vpcConfig"]["subnetIds"] == team["SubnetIds"].split(",")
    estimates = reported(cli("estimate", path, *JSON))
    assert "bedrock" in {one["backend"] for one in estimates}


def test_the_role_reads_its_data_writes_its_output_and_nothing_else(
    aws: Endpoint, team: dict[str, str]
) -> None:
    role, data, output = (team[n] for n in ("BedrockRoleArn", "DataBucketName", "OutputBucketName"))
    aws.client("s3").put_object(Bucket=data, Key="cloudft/data/x", Body=b"ours")
    aws.client("s3").put_object(Bucket=data, Key="neighbor/data/x", Body=b"theirs")
    hands = RoleClientFactory(
        lambda: new_client(aws.url, "s3"), PolicyAuthorizer(aws.client, REGION)
    )
    s3 = hands(role, f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-customization-job/m/x")
    assert s3.get_object(Bucket=data, Key="cloudft/data/x")["Body"].read() == b"ours"
    s3.put_object(Bucket=output, Key="cloudft/jobs/j/output/x", Body=b"")
    assert s3.list_objects_v2(Bucket=data, Prefix="cloudft/data/")["KeyCount"]
    for refused in (
        lambda: s3.get_object(Bucket=data, Key="neighbor/data/x"),
        lambda: s3.put_object(Bucket=data, Key="cloudft/data/x", Body=b""),
        lambda: s3.put_object(Bucket=output, Key="neighbor/jobs/x", Body=b""),
        lambda: s3.list_objects_v2(Bucket=data, Prefix="neighbor/"),
        lambda: s3.get_object(Bucket=team["LogBucketName"], Key="x"),
        lambda: s3.delete_object(Bucket=output, Key="cloudft/jobs/j/output/x"),
    ):
        with pytest.raises(ClientError, match="AccessDenied"):
            refused()
    for theirs in (
        f"arn:aws:bedrock:{REGION}:999999999999:model-customization-job/m/x",
        f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:model-customization-job/m/x",
        f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-import-job/x",
    ):
        with pytest.raises(ClientError, match="sts:AssumeRole"):
            hands(role, theirs)


def test_a_job_on_a_neighbors_prefix_fails_and_says_why(
    cli: Cli, aws: Endpoint, team: dict[str, str], tmp_path: Path
) -> None:
    uri = f"s3://{team['DataBucketName']}/neighbor"
    path = job_file(tmp_path, "astray", bedrock={"s3_uri": uri})
    done = cli("submit", path, "--backend", "bedrock", "--wait", *JSON)
    refused = reported(done, 3)
    assert "s3:GetObject" in json.dumps(refused["findings"]), (
        "check says it before anything is sent"
    )
    folder = {"s3Uri": f"{uri}/data/x.jsonl"}
    created = aws.client("bedrock").create_model_customization_job(
        jobName="astray-anyway",
        customModelName="astray",
        roleArn=team["BedrockRoleArn"],
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        trainingDataConfig=folder,
        outputDataConfig={"s3Uri": f"s3://{team['OutputBucketName']}/cloudft/jobs/a/output/"},
    )
    job = ended(aws, created["jobArn"])
    assert job["status"] == "Failed" and "Could not validate GetObject" in job["failureMessage"]


def ended(aws: Endpoint, arn: str) -> dict[str, Any]:
    for _ in range(100):
        job = aws.client("bedrock").get_model_customization_job(jobIdentifier=arn)
        if job["status"] != "InProgress":
            return dict(job)
        time.sleep(0.1)
    raise AssertionError("the job does not end")


def test_values_of_the_stack_have_their_origin_and_those_of_the_job_file_win(
    cli: Cli, team: dict[str, str], tmp_path: Path
) -> None:
    path = job_file(
        tmp_path, "mine", bedrock={"output_s3_uri": "s3://my-own-bucket/x", "vpc": None}
    )
    shown = {v["field"]: v for v in reported(cli("show", path, "--resolved", *JSON))}
    role = shown["bedrock.role_arn"]
    assert role["value"] == team["BedrockRoleArn"]
    assert (role["origin"], role["where"]) == ("stack", "stack team, BedrockRoleArn")
    assert shown["bedrock.s3_uri"]["value"] == f"s3://{team['DataBucketName']}/cloudft"
    assert shown["bedrock.output_s3_uri"]["value"] == "s3://my-own-bucket/x"
    assert shown["bedrock.output_s3_uri"]["origin"] == "file"
    assert shown["bedrock.vpc"]["value"] is None and shown["bedrock.vpc"]["origin"] == "file"
    whole = {
        v["field"]: v for v in reported(cli("show", job_file(tmp_path, "b"), "--resolved", *JSON))
    }
    assert whole["bedrock.vpc.subnet_ids"]["value"] == team["SubnetIds"].split(",")


def test_the_request_follows_from_what_the_stack_says(
    aws: Endpoint, team: dict[str, str], tmp_path: Path
) -> None:
    job, _ = loaded(job_file(tmp_path, "same"), aws)
    section = job.spec.bedrock.model_dump(exclude={"stack"}, exclude_none=True)
    said = json.loads(json.dumps(section))
    path = write_job_file(tmp_path / "b", Path("nova-micro"), name="same", bedrock=said)
    spec = yaml.safe_load(path.read_text()) | {"hyperparameters": {}}
    path.write_text(yaml.safe_dump(spec))
    tokens = {
        request.request_token(preflight.with_placeholder_data(one)) for one in (job, load_job(path))
    }
    assert len(tokens) == 1
    output = request.create_request(preflight.with_placeholder_data(job))["outputDataConfig"][
        "s3Uri"
    ]
    assert output.startswith(f"s3://{team['OutputBucketName']}/cloudft/jobs/same-")


def test_a_stack_that_does_not_serve_is_one_clear_finding(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    path = job_file(tmp_path, "lost", bedrock={"stack": "nowhere"})
    checked = reported(cli("check", path, "--backend", "bedrock", *JSON), 3)
    [finding] = checked["findings"]
    assert (finding["code"], finding["field"]) == ("NoStack", "bedrock.stack")
    assert finding["line"] and "cloudft infra deploy nowhere" in finding["fix"]
    here = cli("check", path, *JSON).stdout
    assert "NoLocalModel" in here and "NoStack" not in here, "the local backend asks for none"
    topic = "Resources: {Topic: {Type: AWS::SNS::Topic}}\nOutputs: {Prefix: {Value: x}}\n"
    client = aws.client("cloudformation")
    made = {"StackName": "other", "ChangeSetName": "a", "ChangeSetType": "CREATE"}
    client.create_change_set(**made, TemplateBody=topic)
    unready = job_file(tmp_path, "unready", bedrock={"stack": "other"})
    checked = reported(cli("check", unready, "--backend", "bedrock", *JSON), 3)
    assert checked["findings"][0]["code"] == "StackNotReady"
    client.execute_change_set(StackName="other", ChangeSetName="a")
    client.get_waiter("stack_create_complete").wait(StackName="other", WaiterConfig={"Delay": 1})
    done = cli("submit", unready, "--backend", "bedrock")
    assert done.returncode == 3 and "has no output BedrockRoleArn (it has: Prefix)" in done.stderr
    client.delete_stack(StackName="other")


def test_a_deploy_that_fails_says_the_first_reason_first_and_leaves_nothing(
    cli: Cli, aws: Endpoint, team: dict[str, str]
) -> None:
    logs, before = aws.client("logs"), resources_of(aws)
    logs.create_log_group(logGroupName="/cloudft/torn/watch")
    done = cli("infra", "deploy", "torn", "--yes")
    assert done.returncode == 1
    error = next(line for line in done.stderr.splitlines() if line.startswith("error:"))
    assert error.startswith("error: WatchLog (AWS::Logs::LogGroup): ") and "already exists" in error
    assert "ROLLBACK_COMPLETE" in error
    logs.delete_log_group(logGroupName="/cloudft/torn/watch")
    assert resources_of(aws) == before
    again = cli("infra", "deploy", "torn", "--yes")
    assert again.returncode == 0 and "removing what is left of it first" in again.stderr
    changed = cli("infra", "status", "torn")
    assert "drift: none" in changed.stdout
    # An account has one provider for GitHub at most, and the stack `team` has made it.
    failed = cli("infra", "deploy", "torn", "--yes", "--param", "GitHubRepository=a/b")
    assert failed.returncode == 1 and "GitHubProvider" in failed.stderr.rpartition("error: ")[2]
    assert "UPDATE_ROLLBACK_COMPLETE" in failed.stderr
    ready = reported(cli("infra", "status", "torn", "--no-drift", *JSON))["stack"]
    assert ready["outputs"]["BedrockRoleArn"] and "CiRoleArn" not in ready["outputs"]
    assert cli("infra", "destroy", "torn", "--yes").returncode == 0


POLICY = """Resources:
  Policy:
    Type: AWS::IAM::ManagedPolicy
    Properties:
      PolicyDocument:
        Version: "2012-10-17"
        Statement: [{Effect: Allow, Action: "s3:GetObject", Resource: "arn:aws:s3:::%s"}]
"""


def test_what_iam_and_cloudformation_do_not_take_is_not_taken_here(aws: Endpoint) -> None:
    client = aws.client("cloudformation")
    given: dict[str, Any] = {"StackName": "large", "ChangeSetName": "a", "ChangeSetType": "CREATE"}
    given["Capabilities"] = ["CAPABILITY_IAM"]
    with pytest.raises(ClientError, match="less than or equal to 51200"):
        client.create_change_set(**given, TemplateBody=POLICY % "x" + "#" * 51_200)
    client.create_change_set(**given, TemplateBody=POLICY % ("x" * 6144))
    client.execute_change_set(StackName="large", ChangeSetName="a")

    def failed() -> list[str]:
        events = client.describe_stack_events(StackName="large")["StackEvents"]
        return [e["ResourceStatusReason"] for e in events if "FAILED" in e["ResourceStatus"]]

    assert "Cannot exceed quota for PolicySize: 6144" in str(wait_until(failed, "it fails"))
    client.delete_stack(StackName="large")


def test_a_stack_of_the_longest_name_is_deployed(
    cli: Cli, aws: Endpoint, team: dict[str, str]
) -> None:
    """Two of its names would be longer than Step Functions takes, were they the stack's."""
    name = "t" * 128
    words = ("--template", "jobs", "--from", "team", "--yes")
    made = reported(cli("infra", "deploy", name, *words, *JSON))["stack"]
    assert made["status"] == "CREATE_COMPLETE"
    machines = aws.client("stepfunctions").list_state_machines()["stateMachines"]
    assert all(len(machine["name"]) <= 80 for machine in machines) and len(machines) >= 2
    assert cli("infra", "destroy", name, "--yes").returncode == 0


def test_drift_is_named_and_repaired_nowhere(cli: Cli, aws: Endpoint, team: dict[str, str]) -> None:
    s3, bucket = aws.client("s3"), team["DataBucketName"]
    s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Suspended"})
    try:
        report = reported(cli("infra", "status", "team", *JSON))
    finally:
        s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    [drift] = report["drift"]
    assert (drift["resource"], drift["properties"]) == ("DataBucket", ["VersioningConfiguration"])
    assert report["usdPerMonth"] == pytest.approx(1.4 + 4 * 2 * 7.3)
    assert any(cost["perMonth"] is None for cost in report["costs"])


def test_what_runs_or_is_protected_is_not_destroyed(
    cli: Cli, aws: Endpoint, team: dict[str, str]
) -> None:
    assert cli("infra", "deploy", "team", "--protect", "--yes").returncode == 0
    refused = cli("infra", "destroy", "team", "--yes", "--delete-data")
    assert refused.returncode == 2 and "--no-protect" in refused.stderr
    assert cli("infra", "deploy", "team", "--no-protect", "--yes").returncode == 0
    aws.fault({"operation": "validationDetails", "do": "delay"})
    requested = cli("infra", "destroy", "team", "--delete-data", answer="n\n")
    assert requested.returncode == 130 and team["DataBucketName"] in requested.stderr
    assert reported(cli("infra", "status", "team", "--no-drift", *JSON))["stack"]["outputs"] == team


def test_a_lost_answer_makes_nothing_twice_and_a_broken_off_end_is_gone_on_with(
    cli: Cli, aws: Endpoint
) -> None:
    before = resources_of(aws)
    aws.fault(
        {"operation": "CreateChangeSet", "do": "drop"},
        {"operation": "ExecuteChangeSet", "do": "drop"},
        {"operation": "DescribeStacks", "do": "throttle"},
        {"operation": "DeleteStack", "do": "drop"},
    )
    made = reported(cli("infra", "deploy", "lossy", "--yes", *JSON))
    assert made["stack"]["status"] == "CREATE_COMPLETE"
    assert len(aws.calls("CreateChangeSet")) >= 2
    roles = resources_of(aws)["roles"] - before["roles"]
    assert sum(role.startswith("lossy-BedrockRole") for role in roles) == 1
    kept = reported(cli("infra", "destroy", "lossy", "--yes", "--keep-data", *JSON))["resources"]
    assert set(kept.values()) == {"stays"} and len(kept) == 4
    data = next(name for name in kept if "databucket" in name)
    aws.client("s3").put_object(Bucket=data, Key="cloudft/data/x", Body=b"1")
    assert cli("infra", "destroy", "lossy", "--yes").returncode == 2
    reported(cli("infra", "destroy", "lossy", "--yes", "--delete-data", *JSON))
    assert resources_of(aws) == before


def test_control_c_says_what_goes_on_and_the_same_command_goes_on_with_it(
    cli: Cli, aws: Endpoint, tmp_path: Path
) -> None:
    aws.fault({"operation": "DescribeStackEvents", "do": "delay", "seconds": 3, "skip": 1})
    process = subprocess.Popen(
        [sys.executable, "-m", "cloudft", "infra", "deploy", "patient", "--yes"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    for _ in range(200):
        if aws.calls("ExecuteChangeSet")[-1:] and _stack_of(aws, "patient"):
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "continues" in said and "cloudft infra status patient" in said
    aws.fault()
    done = cli("infra", "deploy", "patient", "--yes")
    assert done.returncode == 0 and "nothing to change" in done.stdout
    assert cli("infra", "destroy", "patient", "--yes").returncode == 0


def _stack_of(aws: Endpoint, name: str) -> bool:
    stacks = aws.client("cloudformation").describe_stacks()["Stacks"]
    return any(s["StackName"] == name and s["StackStatus"][:6] == "CREATE" for s in stacks)


def test_the_printed_policy_is_enough_and_no_more(
    aws: Endpoint,
    team: dict[str, str],
    tmp_path: Path,
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = job_file(tmp_path, "least")
    printed = reported(cli("infra", "policy", path, *JSON))
    job, _ = loaded(path, aws)
    assert printed == caller_policy(preflight.with_placeholder_data(job))
    found = printed["Statement"]
    calls = request.api_calls(preflight.with_placeholder_data(job))
    for call in (*calls.uploads, calls.plan_file):
        requested = call.parameters
        arn = f"arn:aws:s3:::{requested['Bucket']}/{requested['Key']}"
        assert evaluate_policies(found, AccessRequest("s3:PutObject", arn, {})) == "allowed"
        elsewhere = arn.replace("/cloudft/", "/neighbor/")
        assert (
            evaluate_policies(found, AccessRequest("s3:PutObject", elsewhere, {})) == "implicitDeny"
        )
    for need in required_permissions.caller_permissions(job):
        one = need.as_simulated()
        requested_ = AccessRequest(one.action, one.resource, dict(one.context_keys))
        assert evaluate_policies(found, requested_) == "allowed", need
        without_it = [s for s in found if need.action not in s["Action"]]
        assert evaluate_policies(without_it, requested_) == "implicitDeny", need
    for name, value in _user(aws, "least-user", printed).items():
        monkeypatch.setenv(name, value)
    checked = reported(cli("check", path, "--backend", "bedrock", *JSON))
    assert checked["findings"] == [], "the simulator says the same of whoever has it"
    bare = _user(aws, "bare-user", {"Version": "2012-10-17", "Statement": []})
    for name, value in bare.items():
        monkeypatch.setenv(name, value)
    checked = reported(cli("check", path, "--backend", "bedrock", *JSON), 3)
    assert {f["code"] for f in checked["findings"]} == {"CallerDenied"}


def _user(aws: Endpoint, name: str, policy: dict[str, Any]) -> dict[str, str]:
    """A user of IAM with that policy alone: the environment that has its key."""
    iam = aws.client("iam")
    iam.create_user(UserName=name)
    document = json.dumps(policy)
    if policy["Statement"]:
        iam.put_user_policy(UserName=name, PolicyName="p", PolicyDocument=document)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    return {
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }


def model_of(aws: Endpoint, team: dict[str, str]) -> str:
    """A custom model, made as the stack's role."""
    turns = [{"role": role, "content": [{"text": "Hi"}]} for role in ("user", "assistant")]
    record = {"schemaVersion": "bedrock-conversation-2024", "messages": turns}
    lines = (json.dumps(record).encode() + b"\n") * 8  # the fewest that Nova takes
    aws.client("s3").put_object(Bucket=team["DataBucketName"], Key="cloudft/data/w", Body=lines)
    output = f"s3://{team['OutputBucketName']}/cloudft/jobs/w/output/"
    created = aws.client("bedrock").create_model_customization_job(
        jobName="watched",
        customModelName="watched",
        roleArn=team["BedrockRoleArn"],
        baseModelIdentifier="amazon.nova-micro-v1:0:128k",
        trainingDataConfig={"s3Uri": f"s3://{team['DataBucketName']}/cloudft/data/w"},
        outputDataConfig={"s3Uri": output},
    )
    job = ended(aws, created["jobArn"])
    assert job["status"] == "Completed", job.get("failureMessage")
    return str(job["outputModelArn"])


def test_the_watch_counts_what_is_past_its_time(
    aws: Endpoint, team: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The function's own code, as it stands in the template, against the endpoint."""
    template = templates.parse_template(templates.load_template_text("base"))
    code = template["Resources"]["Watch"]["Properties"]["Code"]["ZipFile"]
    monkeypatch.setenv("STACK", "team")
    monkeypatch.setenv("STACK_ID", "arn:aws:cloudformation:us-east-1:000000000000:stack/team/1")
    monkeypatch.setenv("HOURS", "24")
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    module: dict[str, Any] = {}
    exec(compile(code, "index.py", "exec"), module)
    tick = {"time": "2026-11-29T12:00:00Z"}
    assert module["handler"](tick, None) == {"forgotten": [], "ended": []}
    bedrock, model = aws.client("bedrock"), model_of(aws, team)
    for name, expires in (
        ("old", "2020-01-01T00:00:00+00:00"),
        ("new", "2999-01-01T00:00:00+00:00"),
    ):
        bedrock.create_provisioned_model_throughput(
            provisionedModelName=name,
            modelId=model,
            modelUnits=1,
            tags=[{"key": "cloudft:expires", "value": expires}],
        )
    assert module["handler"](tick, None)["forgotten"] == ["old"]
    monkeypatch.setenv("HOURS", "-1")
    bedrock.create_provisioned_model_throughput(
        provisionedModelName="untagged", modelId=model, modelUnits=1
    )
    assert sorted(module["handler"](tick, None)["forgotten"]) == ["old", "untagged"]
    reported_ = aws.client("cloudwatch").get_metric_statistics(
        Namespace="cloudft",
        MetricName="ForgottenThroughputs",
        Dimensions=[{"Name": "Stack", "Value": "team"}],
        StartTime="2020-01-01",
        EndTime="2999-01-01",
        Period=60,
        Statistics=["Maximum"],
    )
    assert max(point["Maximum"] for point in reported_["Datapoints"]) == 2


def test_synth_prints_the_template_as_it_is(cli: Cli) -> None:
    done = cli("infra", "synth")
    assert done.stdout.rstrip() == templates.load_template_text("base").rstrip()
    value = reported(cli("infra", "synth", "--param", "WithVpc=yes", *JSON))
    assert {"name", "value", "rules"} == value["parameters"][0].keys()
    bad = cli("infra", "synth", "--param", "WithVpc=maybe")
    assert bad.returncode == 2 and "one of yes, no" in bad.stderr
    none = cli("infra", "synth", "--template", "other")
    assert none.returncode == 2 and "there is no template other" in none.stderr


def sagemaker_file(folder: Path, model: Path, name: str, **more: Any) -> Path:
    """A job file for SageMaker that names nothing of AWS but a stack."""
    section = {"stack": "team", "image_uri": "pytorch-training:any", **more}
    return write_job_file(folder, model, name=name, sagemaker=section)


def test_a_training_job_of_the_stack_is_found_fit_and_acts_as_its_role(
    aws: Endpoint, team: dict[str, str], tiny_model: Path, tmp_path: Path, cli: Cli
) -> None:
    path = sagemaker_file(tmp_path / "job", tiny_model, "of-the-stack")
    checked = reported(cli("check", path, "--backend", "sagemaker", *JSON))
    assert {f["code"] for f in checked["findings"]} <= {"NetworkOfItsOwn"}
    shown = {one["field"]: one for one in reported(cli("show", path, "--resolved", *JSON))}
    assert shown["sagemaker.role_arn"]["value"] == team["SageMakerRoleArn"]
    assert shown["sagemaker.role_arn"]["where"] == "stack team, SageMakerRoleArn"
    assert shown["sagemaker.vpc.subnet_ids"]["value"] == team["SubnetIds"].split(",")
    done = reported(cli("submit", path, "--backend", "sagemaker", "--wait", *JSON))
    assert done["status"] == "Completed", done["failureMessage"]
    [requested] = [
        c for c in aws.calls("CreateTrainingJob") if c["RoleArn"] == team["SageMakerRoleArn"]
    ]
    assert requested["VpcConfig"]["Subnets"] == team["SubnetIds"].split(",")
    assert requested["OutputDataConfig"]["KmsKeyId"] == team["KeyArn"]
    sagemaker = aws.client("sagemaker")
    for lacking in ("s3:GetObject", "s3:PutObject", "kms:GenerateDataKey"):
        name = f"without-{lacking.replace(':', '-')}"
        role = role_without(aws, name, lacking)
        sagemaker.create_training_job(**{**requested, "TrainingJobName": name, "RoleArn": role})
        failed = wait_until(functools.partial(training_ended, aws, name), f"{name} ends")
        assert failed["TrainingJobStatus"] == "Failed", lacking
        assert f"{role} is not authorized to perform: {lacking}" in failed["FailureReason"]
    with pytest.raises(sagemaker.exceptions.ClientError, match="Could not assume role"):
        other = {"TrainingJobName": "other", "RoleArn": team["BedrockRoleArn"]}
        sagemaker.create_training_job(**{**requested, **other})


def role_without(aws: Endpoint, name: str, action: str) -> str:
    """A role that SageMaker may take on, with all permissions but one."""
    iam = aws.client("iam")
    trust = json.dumps(SAGEMAKER_TRUST)
    arn = iam.create_role(RoleName=name, AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    allow = {"Effect": "Allow", "Action": "*", "Resource": "*"}
    deny = {"Effect": "Deny", "Action": action, "Resource": "*"}
    policy = {"Version": "2012-10-17", "Statement": [allow, deny]}
    iam.put_role_policy(RoleName=name, PolicyName="p", PolicyDocument=json.dumps(policy))
    return str(arn)


def training_ended(aws: Endpoint, name: str) -> Any:
    reported = aws.client("sagemaker").describe_training_job(TrainingJobName=name)
    return reported if reported["TrainingJobStatus"] != "InProgress" else None


def test_an_import_takes_its_role_and_its_place_from_the_stack(
    aws: Endpoint, team: dict[str, str], tiny_model: Path, tmp_path: Path
) -> None:
    bedrock = {"region": REGION, "stack": "team"}
    path = write_job_file(tmp_path, tiny_model, bedrock=bedrock)
    home = Home(tmp_path / "home")
    job, found = model_import.check_import(load_job(path), make_backend("local", home), home)
    assert found == [] or {f.code for f in found} == {"ImportRegion"}
    assert job.spec.bedrock.import_role_arn == team["ImportRoleArn"]
    assert job.spec.bedrock.s3_uri == f"s3://{team['DataBucketName']}/cloudft"
