"""The remedies of a check are applied literally: then it finds nothing, and the job runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from endpoint import ACCOUNT, REGION, Endpoint, new_client, running_endpoint
from job_files import write_job_file

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends import make_backend
from cloudft.endpoint.iam.authorizer import PolicyAuthorizer, RoleClientFactory
from cloudft.errors import CheckFailed, StackFailed
from cloudft.infra import change_sets, leftovers
from cloudft.jobs import model_import
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.types import Finding

ROUNDS = 6


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--authorization") as made:
        yield made


@pytest.fixture
def user(
    endpoint: Endpoint, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> str:
    """Create a user without any policy; its keys are in the environment."""
    iam, name = endpoint.client("iam"), f"user-{abs(hash(request.node.name))}"
    iam.create_user(UserName=name)
    key = iam.create_access_key(UserName=name)["AccessKey"]
    for variable, value in endpoint.environ.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    monkeypatch.setenv("AWS_DATA_PATH", "")
    return name


def submit(path: Path, where: str) -> Any:
    """Submit the job; return it at its end."""
    words = ["submit", str(path), "--backend", where, "--wait", "--output", "json"]
    command = [sys.executable, "-m", "cloudft", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def pasted(
    endpoint: Endpoint, look: Callable[[], list[Finding]], role: str, user: str
) -> tuple[set[str], list[Finding]]:
    """Apply every remedy until none is left; return the codes that were met, and the rest."""
    met: set[str] = set()
    for turn in range(ROUNDS):
        findings = look()
        met |= {found.code for found in findings}
        done = [
            apply_fix(endpoint, found.fix, role, user, f"{turn}-{number}")
            for number, found in enumerate(findings)
        ]
        if not any(done):
            return met, findings
    raise AssertionError(findings)


def paste(command: str) -> None:
    """Run a command as a shell does; `aws` is the one beside this Python."""
    for part in command.split(" && "):
        words = shlex.split(part)
        assert words[0] == "aws", command
        run = [sys.executable, "-m", "awscli", *words[1:]]
        done = subprocess.run(run, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"


def check(path: Path, where: str, folder: Path) -> list[Finding]:
    """Check as the command does, in this process."""
    job = load_job(path)
    return list(make_backend(where, Home(folder / "home")).for_job(job).check(job))


def apply_fix(endpoint: Endpoint, fix: str, role: str, user: str, number: str) -> bool:
    """Apply a remedy; return False for one that is a decision of the reader's."""
    iam = endpoint.client("iam")
    if quoted := re.search(r"`(aws [^`]+)`", fix):
        paste(quoted[1])
        return True
    said, brace, rest = fix.partition("{")
    if not brace:
        return False
    document = brace + rest
    if "trust policy" in said and "create it" in said:
        iam.create_role(RoleName=role, AssumeRolePolicyDocument=document)
    elif said.startswith("add to its trust policy"):
        trust = iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"]
        trust["Statement"].append(json.loads(document))
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
    elif "trust policy" in said:
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=document)
    else:
        policy = json.dumps({"Version": "2012-10-17", "Statement": [json.loads(document)]})
        name = {"PolicyName": f"p{number}", "PolicyDocument": policy}
        if said.startswith("grant this to yourself"):
            iam.put_user_policy(UserName=user, **name)
        else:
            assert said.startswith("add to"), fix
            iam.put_role_policy(RoleName=role, **name)
    return True


def network(endpoint: Endpoint) -> dict[str, list[str]]:
    """Create two subnets without a route to S3."""
    ec2 = endpoint.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.9.0.0/24")["Vpc"]["VpcId"]
    subnets = [
        ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.9.0.{n}/26")["Subnet"]["SubnetId"]
        for n in (0, 64)
    ]
    group = ec2.create_security_group(GroupName="jobs", Description="jobs", VpcId=vpc)["GroupId"]
    return {"subnet_ids": subnets, "security_group_ids": [group]}


def disabled_key(endpoint: Endpoint) -> str:
    kms = endpoint.client("kms")
    key = kms.create_key()["KeyMetadata"]
    kms.disable_key(KeyId=key["KeyId"])
    return str(key["Arn"])


def test_a_bedrock_job_from_nothing_by_its_remedies(
    endpoint: Endpoint, user: str, tmp_path: Path
) -> None:
    """No bucket, no role, a disabled key, a network without S3, a user who may do nothing."""
    role, key = "from-nothing", disabled_key(endpoint)
    section = {
        "region": REGION,
        "role_arn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
        "s3_uri": "s3://from-nothing/x",
        "kms_key_id": key,
        "s3_kms_key_id": key,
        "vpc": network(endpoint),
    }
    path = write_job_file(tmp_path, Path("nova-micro"), name="pasted", bedrock=section)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"hyperparameters": {}}))
    met, left = pasted(endpoint, lambda: check(path, "bedrock", tmp_path), role, user)
    assert left == []
    assert met >= {"NoBucket", "BucketNotBlocked", "KeyDisabled", "NoS3Endpoint"}
    assert met >= {"NoRole", "RoleDenied", "CallerDenied"}
    job = submit(path, "bedrock")
    assert job["status"] == "Completed", job


def test_a_role_that_trusts_others_trusts_the_job_by_the_remedy(
    endpoint: Endpoint, user: str, tmp_path: Path
) -> None:
    iam = endpoint.client("iam")
    statement = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}
    trust = {"Version": "2012-10-17", "Statement": [statement | {"Action": "sts:AssumeRole"}]}
    iam.create_role(RoleName="of-others", AssumeRolePolicyDocument=json.dumps(trust))
    section = {"region": REGION, "s3_uri": "s3://training-bucket/team"}
    section["role_arn"] = f"arn:aws:iam::{ACCOUNT}:role/of-others"
    path = write_job_file(tmp_path, Path("nova-micro"), name="of-others", bedrock=section)
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | {"hyperparameters": {}}))
    met, left = pasted(endpoint, lambda: check(path, "bedrock", tmp_path), "of-others", user)
    assert left == [] and "RoleNotTrusted" in met
    hands = RoleClientFactory(
        lambda: new_client(endpoint.url, "s3"), PolicyAuthorizer(endpoint.client, REGION)
    )
    for kind in ("model-customization-job", "model-invocation-job"):  # a job, and its batches
        hands(section["role_arn"], f"arn:aws:bedrock:{REGION}:{ACCOUNT}:{kind}/x")


def test_a_training_job_by_its_remedies(
    endpoint: Endpoint, user: str, tiny_model: Path, tmp_path: Path
) -> None:
    section = {
        "region": REGION,
        "role_arn": f"arn:aws:iam::{ACCOUNT}:role/of-training",
        "s3_uri": "s3://of-training/x",
        "image_uri": "pytorch-training:any",
    }
    path = write_job_file(tmp_path, tiny_model, name="pasted", sagemaker=section)
    met, left = pasted(endpoint, lambda: check(path, "sagemaker", tmp_path), "of-training", user)
    assert {found for found in left if found.severity == "error"} == set()
    assert met >= {"NoBucket", "NoRole", "RoleDenied"}
    job = submit(path, "sagemaker")
    assert job["status"] == "Completed", job


def test_an_import_by_its_remedies(
    endpoint: Endpoint, user: str, tiny_model: Path, tmp_path: Path
) -> None:
    """A role that trusts customization jobs alone, and may do nothing; in a network."""
    iam, role = endpoint.client("iam"), "of-imports"
    guard = f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-customization-job/*"
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": "bedrock.amazonaws.com"},
        "Action": "sts:AssumeRole",
        "Condition": {"ArnLike": {"aws:SourceArn": guard}},
    }
    trust = {"Version": "2012-10-17", "Statement": [statement]}
    iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))
    ec2 = endpoint.client("ec2")
    vpc = ec2.create_vpc(CidrBlock="10.8.0.0/24")["Vpc"]["VpcId"]
    subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="10.8.0.0/26")["Subnet"]["SubnetId"]
    group = ec2.create_security_group(GroupName="i", Description="i", VpcId=vpc)["GroupId"]
    section = {
        "region": REGION,
        "import_role_arn": f"arn:aws:iam::{ACCOUNT}:role/{role}",
        "s3_uri": "s3://training-bucket/x",
        "vpc": {"subnet_ids": [subnet], "security_group_ids": [group]},
    }
    path = write_job_file(tmp_path, tiny_model, name="imported", bedrock=section)
    home = Home(tmp_path / "home")

    def findings() -> list[Finding]:
        try:
            return model_import.check_import(load_job(path), make_backend("local", home), home)[1]
        except CheckFailed as failed:
            return list(failed.findings)

    met, left = pasted(endpoint, findings, role, user)
    assert met >= {"RoleNotTrusted", "RoleDenied", "NoS3Endpoint"}
    assert {found.code for found in left} <= {"ImportRegion"}
    s3 = endpoint.client("s3")
    key = f"x/imports/{'0' * 64}/model.safetensors"
    s3.put_object(Bucket="training-bucket", Key=key, Body=b"weights")
    hands = RoleClientFactory(
        lambda: new_client(endpoint.url, "s3"), PolicyAuthorizer(endpoint.client, REGION)
    )
    mine = hands(section["import_role_arn"], guard.replace("customization", "import"))
    listed = mine.list_objects_v2(Bucket="training-bucket", Prefix=f"x/imports/{'0' * 64}/")
    assert listed["KeyCount"] == 1
    assert mine.get_object(Bucket="training-bucket", Key=key)["Body"].read() == b"weights"


def test_a_key_whose_end_is_ordered_is_saved_by_what_is_said_of_it(
    endpoint: Endpoint, user: str
) -> None:
    kms = endpoint.client("kms")
    key = kms.create_key()["KeyMetadata"]["KeyId"]
    aws = Aws(AwsLocation(REGION, None, endpoint.url))
    kept = leftovers.RetainedResource("Key", "AWS::KMS::Key", key)
    said = leftovers.remove_resource(aws, kept, ACCOUNT, lambda count: None)
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "PendingDeletion"
    paste(re.findall(r"`([^`]+)`", said)[0])
    assert kms.describe_key(KeyId=key)["KeyMetadata"]["KeyState"] == "Enabled"


def test_the_remedy_of_a_rollback_that_failed_names_the_stack_and_its_place() -> None:
    """The endpoint's rollbacks do not fail: test_remedy_commands.py holds the command."""
    from cloudft.aws.stack import Stack

    assert os.environ.get("AWS_PROFILE") is None
    aws = Aws(AwsLocation("eu-west-1", "team"))
    status = "UPDATE_ROLLBACK_FAILED"
    broken = Stack("team", "arn", status, "x", {}, {}, {}, False, "2026-11-29T12:00:00+00:00")
    with pytest.raises(StackFailed) as refused:
        change_sets.raise_if_unusable(aws, broken)
    command = "aws cloudformation continue-update-rollback --stack-name team"
    assert f"`{command} --region eu-west-1 --profile team`" in str(refused.value.fix)
