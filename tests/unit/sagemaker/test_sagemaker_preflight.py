"""What `check` learns from an account before a training job, and from the URI of its image.

The account is moto's; the policy simulator, which moto lacks, allows everything but what is named.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from job_files import write_job_file
from moto import mock_aws
from policy_simulator import patch_policy_simulator

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.base import with_placeholder_data
from cloudft.backends.findings import FindingFactory
from cloudft.backends.sagemaker import account_checks, images, preflight, request
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Finding
from local_backend.container.pip_requirements import TORCH_MIN

REGION, BUCKET, ACCOUNT = "us-east-1", "some-bucket", "123456789012"
OWN = f"{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/team/trainer:1"
STOCK = f"763104351884.dkr.ecr.{REGION}.amazonaws.com/pytorch-training:2.10.0-gpu-py313"
Found = Callable[..., dict[str, Finding]]


def trust(**conditions: dict[str, str]) -> str:
    statement = {
        "Effect": "Allow",
        "Principal": {"Service": account_checks.SERVICE},
        "Action": "sts:AssumeRole",
        "Condition": conditions,
    }
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


GUARDED = trust(StringEquals={"aws:SourceAccount": ACCOUNT})


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[Aws]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    with mock_aws():
        s3 = boto3.client("s3", region_name=REGION)
        s3.create_bucket(Bucket=BUCKET)
        closed = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy")
        closed = (*closed, "RestrictPublicBuckets")
        s3.put_public_access_block(
            Bucket=BUCKET, PublicAccessBlockConfiguration=dict.fromkeys(closed, True)
        )
        iam = boto3.client("iam", region_name=REGION)
        iam.create_role(RoleName="right", AssumeRolePolicyDocument=GUARDED)
        iam.create_user(UserName="me")
        monkeypatch.setattr(
            "moto.sts.responses.TokenResponse.get_caller_identity", caller, raising=True
        )
        patch_policy_simulator(monkeypatch)
        yield Aws(AwsLocation(region=REGION))


def caller(_: Any) -> str:
    """Return a user's identity: the policy simulator is not called for moto's own."""
    arn = f"<Arn>arn:aws:iam::{ACCOUNT}:user/me</Arn><Account>{ACCOUNT}</Account>"
    result = f"<GetCallerIdentityResult>{arn}<UserId>x</UserId></GetCallerIdentityResult>"
    return f"<GetCallerIdentityResponse>{result}</GetCallerIdentityResponse>"


@pytest.fixture
def found(aws: Aws) -> Found:
    def look(image: str = STOCK, **section: Any) -> dict[str, Finding]:
        flags = {
            "name": "x",
            "base_model": "smollm2-135m",
            "data.train": "x.jsonl",
            "sagemaker.role_arn": f"arn:aws:iam::{ACCOUNT}:role/right",
            "sagemaker.s3_uri": f"s3://{BUCKET}/x",
            **{f"sagemaker.{name}": value for name, value in section.items()},
        }
        job = load_job(None, flags=flags)
        return {
            f.code: f for f in account_checks.check_account(job, aws, FindingFactory(job), image)
        }

    return look


def test_a_sound_account_has_no_finding(found: Found) -> None:
    assert found() == {}


@pytest.mark.parametrize(
    ("name", "document", "code"),
    [
        ("other-service", GUARDED.replace("sagemaker.", "ec2."), "RoleNotTrusted"),
        ("other-account", GUARDED.replace(ACCOUNT, "999999999999"), "RoleNotTrusted"),
        (
            "other-region",
            trust(ArnLike={"aws:SourceArn": f"arn:aws:sagemaker:eu-west-1:{ACCOUNT}:*"}),
            "RoleNotTrusted",
        ),
        ("open", trust(), "RoleOpen"),
        ("none", None, "NoRole"),
    ],
)
def test_the_role(found: Found, name: str, document: str | None, code: str) -> None:
    if document is not None:
        boto3.client("iam").create_role(RoleName=name, AssumeRolePolicyDocument=document)
    finding = found(role_arn=f"arn:aws:iam::{ACCOUNT}:role/{name}")[code]
    assert finding.severity == ("warning" if code == "RoleOpen" else "error")
    fix = str(finding.fix)
    policy = json.loads(fix[fix.index("{") :])
    boto3.client("iam").create_role(RoleName="fixed", AssumeRolePolicyDocument=json.dumps(policy))
    assert found(role_arn=f"arn:aws:iam::{ACCOUNT}:role/fixed") == {}


def test_the_bucket_and_another_accounts_role(found: Found) -> None:
    assert "aws s3 mb" in str(found(s3_uri="s3://no-such-bucket-there/x")["NoBucket"].fix)
    boto3.client("s3", region_name=REGION).create_bucket(Bucket="could-be-open")
    open_ = found(s3_uri="s3://could-be-open")["BucketNotBlocked"]
    assert "put-public-access-block" in str(open_.fix)
    role = "arn:aws:iam::999999999999:role/right"
    assert "WrongAccount" in found(role_arn=role, bucket_owner=ACCOUNT)


def test_keys_that_do_not_work_are_refused(found: Found) -> None:
    kms = boto3.client("kms", region_name=REGION)
    disabled, going = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    kms.disable_key(KeyId=disabled[-36:])
    kms.schedule_key_deletion(KeyId=going[-36:], PendingWindowInDays=7)
    kms.create_alias(AliasName="alias/going", TargetKeyId=going)
    for field in ("kms_key_id", "s3_kms_key_id"):
        finding = found(**{field: disabled})["KeyDisabled"]
        assert (finding.severity, finding.field) == ("error", f"sagemaker.{field}")
        assert "enable-key" in str(finding.fix)
        assert "cancel-key-deletion" in str(found(**{field: "alias/going"})["KeyDisabled"].fix)
    assert "NoKey" in found(kms_key_id=disabled[:-36] + "0" * 36)
    encrypt(disabled)
    assert found()["KeyDisabled"].field == "sagemaker.s3_uri"


def encrypt(key: str) -> None:
    """Make a key the default key of the bucket."""
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rules = {"Rules": [{"ApplyServerSideEncryptionByDefault": default}]}
    boto3.client("s3", region_name=REGION).put_bucket_encryption(
        Bucket=BUCKET, ServerSideEncryptionConfiguration=rules
    )


@pytest.mark.parametrize("action", ["kms:Decrypt", "kms:GenerateDataKey"])
def test_the_buckets_own_key_is_one_that_the_role_needs(
    found: Found, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    patch_policy_simulator(monkeypatch, action)
    assert found() == {}, "no key, no need of one"
    key = boto3.client("kms", region_name=REGION).create_key()["KeyMetadata"]["Arn"]
    encrypt(key)
    finding = found()["RoleDenied"]
    assert finding.severity == "warning" and f"{action} on {key}" in finding.message


@pytest.mark.parametrize(
    ("action", "code", "severity"),
    [
        ("s3:GetObject", "RoleDenied", "error"),
        ("s3:PutObject", "RoleDenied", "error"),
        ("logs:PutLogEvents", "RoleDenied", "warning"),
        ("ecr:GetAuthorizationToken", "RoleDenied", "error"),
        ("ecr:BatchGetImage", "RoleDenied", "warning"),
        ("ecr:GetDownloadUrlForLayer", "RoleDenied", "warning"),
        ("iam:PassRole", "CallerDenied", "error"),
        ("sagemaker:CreateTrainingJob", "CallerDenied", "error"),
        ("sagemaker:AddTags", "CallerDenied", "error"),
        ("logs:GetLogEvents", "CallerDenied", "warning"),
    ],
)
def test_what_the_role_and_the_caller_may_do(
    found: Found, monkeypatch: pytest.MonkeyPatch, action: str, code: str, severity: str
) -> None:
    patch_policy_simulator(monkeypatch, action)
    reported = found(OWN)
    assert {(f.code, f.severity) for f in reported.values()} == {(code, severity)}
    assert action in str(reported[code].fix)
    if action.startswith("ecr:"):
        assert found(STOCK) == {}, "SageMaker pulls AWS's own images with its own credentials"


def test_what_may_not_be_read_is_unchecked_and_the_rest_is_checked(
    found: Found, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cloudft.aws.permissions._decisions", _denied)
    reported = found(role_arn=f"arn:aws:iam::{ACCOUNT}:role/none")
    assert reported["CouldNotCheck"].severity == "warning" and "NoRole" in reported


def _denied(aws: Aws, *_: Any) -> dict[str, str]:
    raise account_checks.CloudRefused("AccessDenied: iam:SimulatePrincipalPolicy")


@pytest.mark.parametrize(
    ("uri", "machine", "code"),
    [
        (STOCK, "ml.g5.xlarge", None),
        (STOCK.replace(REGION, "eu-west-1"), "ml.g5.xlarge", "WrongRegion"),
        (STOCK.replace("2.10.0", "1.13.1"), "ml.g5.xlarge", "ImageTooOld"),
        (STOCK.replace("2.10.0", "2.5.1"), "ml.g5.xlarge", "ImageTooOld"),
        (STOCK.replace("2.10.0", "2.6.0"), "ml.g5.xlarge", None),
        (
            STOCK.replace("pytorch-training:2.10.0", "huggingface-pytorch-training:2.1.0-t4.36.0"),
            "ml.g5.xlarge",
            "ImageTooOld",
        ),
        (STOCK.replace("-gpu-", "-cpu-"), "ml.g5.xlarge", "ImageWithoutGpu"),
        (STOCK.replace("-gpu-", "-cpu-"), "ml.m5.xlarge", None),
        (OWN.replace("trainer:1", "trainer:1.13"), "ml.g5.xlarge", None),
        (STOCK + "@sha256:" + "0" * 64, "ml.g5.xlarge", None),
        ("pytorch-training:any", "ml.g5.xlarge", None),
    ],
)
def test_the_uri_of_an_image_is_checked(
    tmp_path: Path, tiny_model: Path, uri: str, machine: str, code: str | None
) -> None:
    section = {
        "region": REGION,
        "role_arn": f"arn:aws:iam::{ACCOUNT}:role/right",
        "s3_uri": f"s3://{BUCKET}/x",
        "image_uri": uri,
        "instance_type": machine,
    }
    job = load_job(write_job_file(tmp_path / "job", tiny_model, sagemaker=section))
    codes = {f.code for f in offline(job) if f.severity == "error"}
    assert codes == ({code} if code else set())


def offline(job: LoadedJob) -> list[Finding]:
    """Return the findings without an account: nothing listens at that address."""
    aws = Aws(AwsLocation(region=REGION, endpoint_url="http://127.0.0.1:9"))
    backend = SageMakerBackend(Home(job.base_dir), aws)
    return preflight.check_job(
        job, aws, [], lambda: backend._job_inputs(with_placeholder_data(job), ())
    )


@pytest.mark.parametrize(
    ("machine", "codes"), [("ml.m5.xlarge", {"NoGpu"}), ("ml.g5.xlarge", set())]
)
def test_qlora_needs_a_machine_with_a_gpu(
    tmp_path: Path, tiny_model: Path, machine: str, codes: set[str]
) -> None:
    section = {
        "region": REGION,
        "role_arn": f"arn:aws:iam::{ACCOUNT}:role/right",
        "s3_uri": f"s3://{BUCKET}/x",
        "image_uri": STOCK,
        "instance_type": machine,
    }
    path = write_job_file(
        tmp_path / "job", tiny_model, sagemaker=section, local={"method": "qlora"}
    )
    found = {f.code for f in offline(load_job(path)) if f.severity == "error"}
    assert found == codes


def test_the_oldest_pytorch_is_the_same_on_both_sides() -> None:
    assert ".".join(map(str, TORCH_MIN)) == images.TORCH_MIN
    assert request.CONTAINER_ROOT == "/opt/ml"
