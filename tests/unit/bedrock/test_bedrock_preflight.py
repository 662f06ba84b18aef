"""Each failure that real users met and that can be seen before submit is found by `check`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from endpoint import ACCOUNT, AWS_KEYS, BEDROCK_TRUST, BUCKET, REGION, Endpoint, running_endpoint
from job_files import write_job_file

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.permissions import principal_arn
from cloudft.backends.aws_base import account_checks
from cloudft.backends.bedrock import preflight
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.errors import CloudftError, CloudUnreachable, PermissionDenied, SpecError
from cloudft.jobs import prepare
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Finding


@pytest.fixture(scope="module")
def endpoint() -> Iterator[Endpoint]:
    with running_endpoint("--clock", "fast", "--seconds", "60") as made:
        yield made


@pytest.fixture(autouse=True)
def keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in AWS_KEYS.items():
        monkeypatch.setenv(name, value)


class CannedAws(Aws):
    """AWS, with some answers of our own: what moto lacks, or can't be brought to say."""

    def __init__(self, location: AwsLocation, answers: Mapping[str, Any]) -> None:
        super().__init__(location)
        self.answers = {"simulate_principal_policy": deny_action("none"), **answers}

    def call(self, what: str, service: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
        answer = self.answers.get(operation)
        if answer is None:
            return super().call(what, service, operation, **parameters)
        answer = answer(parameters) if callable(answer) else answer
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


def job(folder: Path, endpoint: Endpoint, model: str = "nova-micro", **changes: Any) -> LoadedJob:
    section = {**endpoint.bedrock_section, "endpoint_url": endpoint.url, **changes}
    path = write_job_file(folder, Path(model), bedrock=section, hyperparameters={}, records=16)
    text = path.read_text()
    for setting in ("batchSize: 4", "learningRate: 0.01", "learningRateWarmupSteps: 0"):
        text = text.replace(setting, "")
    path.write_text(text)
    return load_job(path)


def findings_by_code(job: LoadedJob, endpoint: Endpoint, **answers: Any) -> dict[str, Finding]:
    place = AwsLocation(region=REGION, endpoint_url=endpoint.url)
    return {f.code: f for f in preflight.check_job(job, CannedAws(place, answers))}


def deny_action(action: str) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return a simulator whose policies allow all actions but one."""

    def simulate(parameters: Mapping[str, Any]) -> dict[str, Any]:
        results = [
            {
                "EvalActionName": one,
                "EvalDecision": "implicitDeny" if one == action else "allowed",
            }
            for one in parameters["ActionNames"]
        ]
        return {"EvaluationResults": results}

    return simulate


def test_a_sound_job_has_no_finding(tmp_path: Path, endpoint: Endpoint) -> None:
    assert findings_by_code(job(tmp_path, endpoint), endpoint) == {}


def role(endpoint: Endpoint, name: str, trust: Mapping[str, Any]) -> str:
    iam = endpoint.client("iam")
    made = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    return str(made["Role"]["Arn"])


def trusting(**statement: Any) -> dict[str, Any]:
    [usual] = BEDROCK_TRUST["Statement"]
    return {"Version": "2012-10-17", "Statement": [{**usual, **statement}]}


def bucket(endpoint: Endpoint, name: str, **settings: Any) -> str:
    endpoint.client("s3").create_bucket(Bucket=name, **settings)
    return f"s3://{name}/x"


def test_the_role(tmp_path: Path, endpoint: Endpoint) -> None:
    lambdas = role(endpoint, "for-lambda", trusting(Principal={"Service": "lambda.amazonaws.com"}))
    other = {"StringEquals": {"aws:SourceAccount": "999999999999"}}
    locked = role(endpoint, "locked-out", trusting(Condition=other))
    wrong = {"ArnLike": {"aws:SourceArn": f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:*"}}
    elsewhere = role(endpoint, "elsewhere", trusting(Condition=wrong))
    open_ = role(endpoint, "open", trusting(Condition={}))
    cases = {lambdas: "RoleNotTrusted", locked: "RoleNotTrusted", elsewhere: "RoleNotTrusted"}
    cases |= {open_: "RoleOpen", f"arn:aws:iam::{ACCOUNT}:role/none": "NoRole"}
    for arn, code in cases.items():
        finding = findings_by_code(job(tmp_path, endpoint, role_arn=arn), endpoint)[code]
        assert "bedrock.amazonaws.com" in str(finding.fix)
        assert finding.field == "bedrock.role_arn" and finding.line
    foreign_role = "arn:aws:iam::123456789012:role/x"
    findings = findings_by_code(
        job(tmp_path, endpoint, role_arn=foreign_role, bucket_owner=ACCOUNT), endpoint
    )
    assert "WrongAccount" in findings


@pytest.mark.parametrize(
    ("action", "code", "what"),
    [
        ("s3:GetObject", "RoleDenied", BUCKET),
        ("s3:ListBucket", "RoleDenied", BUCKET),
        ("s3:PutObject", "RoleDenied", BUCKET),
        ("iam:PassRole", "CallerDenied", "role/bedrock-job"),
        ("bedrock:CreateModelCustomizationJob", "CallerDenied", "Allow"),
    ],
)
def test_what_the_role_and_the_caller_may_do(
    tmp_path: Path, endpoint: Endpoint, action: str, code: str, what: str
) -> None:
    denied = deny_action(action)
    finding = findings_by_code(job(tmp_path, endpoint), endpoint, simulate_principal_policy=denied)
    assert set(finding) == {code}
    assert action in str(finding[code].fix) and what in str(finding[code].fix)


def test_a_session_is_its_role() -> None:
    session = "arn:aws:sts::123456789012:assumed-role/team/me"
    assert principal_arn(session) == "arn:aws:iam::123456789012:role/team"


def test_the_bucket(tmp_path: Path, endpoint: Endpoint) -> None:
    def of(uri: str, **answers: Any) -> dict[str, Finding]:
        return findings_by_code(job(tmp_path, endpoint, s3_uri=uri), endpoint, **answers)

    assert "aws s3 mb" in str(of("s3://no-such-bucket-here/x")["NoBucket"].fix)
    there = {"LocationConstraint": "eu-west-1"}
    far = bucket(endpoint, "far-away-bucket", CreateBucketConfiguration=there)
    assert "eu-west-1" in of(far)["WrongRegion"].message
    assert "put-public-access-block" in str(of(far)["BucketNotBlocked"].fix)
    kms = bucket(endpoint, "kms-bucket")
    key = endpoint.client("kms").create_key()["KeyMetadata"]["Arn"]
    default = {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": key}
    rule = {"ApplyServerSideEncryptionByDefault": default}
    endpoint.client("s3").put_bucket_encryption(
        Bucket="kms-bucket", ServerSideEncryptionConfiguration={"Rules": [rule]}
    )
    denied = of(kms, simulate_principal_policy=deny_action("kms:Decrypt"))["RoleDenied"]
    assert f"kms:Decrypt on {key}" in denied.message and denied.severity == "warning"


def test_the_model(tmp_path: Path, endpoint: Endpoint) -> None:
    def listed(identifier: str, status: str, *kinds: str) -> dict[str, Any]:
        state = {"status": status}
        model = {"modelId": identifier, "modelLifecycle": state, "customizationsSupported": kinds}
        return {"modelSummaries": [model]}

    micro = "amazon.nova-micro-v1:0:128k"
    nova = job(tmp_path, endpoint)
    for answer, code in {
        "gone": {"modelSummaries": []},
        "legacy": listed(micro, "LEGACY", "FINE_TUNING"),
        "kind": listed(micro, "ACTIVE", "DISTILLATION"),
    }.items():
        codes = {"gone": "ModelNotThere", "legacy": "ModelLegacy"}
        expected = codes.get(answer, "UnsupportedCustomizationType")
        assert expected in findings_by_code(nova, endpoint, list_foundation_models=code)
    denied = {
        "agreementAvailability": {"status": "NOT_AVAILABLE"},
        "authorizationStatus": "NOT_AUTHORIZED",
        "entitlementAvailability": "AVAILABLE",
        "regionAvailability": "AVAILABLE",
    }
    findings = findings_by_code(nova, endpoint, get_foundation_model_availability=denied)
    assert "Model access" in str(findings["NoModelAccess"].fix)
    assert "CatalogueDrift" in findings_by_code(
        job(tmp_path, endpoint, "titan-text-lite"), endpoint
    )
    nothing = {"modelSummaries": []}
    gone = findings_by_code(
        job(tmp_path, endpoint, "titan-text-lite"), endpoint, list_foundation_models=nothing
    )
    assert "2025-08-15" in gone["ModelEndOfLife"].message
    assert "nova-lite" in str(gone["ModelEndOfLife"].fix)


@pytest.mark.parametrize(("days", "code"), [(90, True), (400, False), (-10, False)])
def test_a_model_whose_end_is_near(
    tmp_path: Path, endpoint: Endpoint, days: int, code: bool
) -> None:
    end = datetime.now(timezone.utc) + timedelta(days=days)
    identifier = "amazon.nova-micro-v1:0:128k"
    life = {"status": "ACTIVE", "endOfLifeTime": end}
    offer = {
        "modelId": identifier,
        "modelLifecycle": life,
        "customizationsSupported": ["FINE_TUNING"],
    }
    answer = {"modelSummaries": [offer]}
    findings = findings_by_code(job(tmp_path, endpoint), endpoint, list_foundation_models=answer)
    assert ("ModelEndsSoon" in findings) is code
    if code:
        assert f"{end:%Y-%m-%d}" in findings["ModelEndsSoon"].message
        assert findings["ModelEndsSoon"].severity == "warning"


def test_where_models_are_not(tmp_path: Path, endpoint: Endpoint, tiny_model: Path) -> None:
    west = findings_by_code(job(tmp_path, endpoint, "llama-3.1-8b"), endpoint)
    assert west["RegionUnsupported"].fix == "set bedrock.region: us-west-2, with a bucket there."
    own = findings_by_code(job(tmp_path, endpoint, str(tiny_model)), endpoint)
    assert "import it into Bedrock" in str(own["NotOnBedrock"].fix)


def test_the_remedy_for_a_key_follows_from_its_state(tmp_path: Path, endpoint: Endpoint) -> None:
    kms = endpoint.client("kms")
    states = set(kms.meta.service_model.shape_for("KeyState").enum)
    assert states == {"Enabled", *account_checks.KEY_COMMANDS, *account_checks.KEY_REMEDIES}
    key = kms.create_key()["KeyMetadata"]["Arn"]
    kms.schedule_key_deletion(KeyId=key[-36:], PendingWindowInDays=7)
    wanted = job(tmp_path, endpoint, kms_key_id=key)
    finding = findings_by_code(wanted, endpoint)["KeyDisabled"]
    assert "is PendingDeletion" in finding.message
    for operation, identifier in re.findall(r"aws kms (\S+) --key-id (\S+)", finding.fix or ""):
        getattr(kms, operation.replace("-", "_"))(KeyId=identifier)
    assert "KeyDisabled" not in findings_by_code(wanted, endpoint)


def test_keys_and_network(tmp_path: Path, endpoint: Endpoint) -> None:
    kms = endpoint.client("kms")
    disabled = kms.create_key()["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=disabled[-36:])
    rsa = kms.create_key(KeySpec="RSA_2048", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"]
    missing = disabled[:-36] + "00000000-0000-0000-0000-000000000000"
    for key, code in {disabled: "KeyDisabled", rsa: "KeyNotSymmetric", missing: "NoKey"}.items():
        assert code in findings_by_code(job(tmp_path, endpoint, kms_key_id=key), endpoint)
    subnet = {"Subnets": [{"VpcId": "vpc-1"}]}
    other = {"SecurityGroups": [{"VpcId": "vpc-2"}]}
    vpc = job(tmp_path, endpoint, vpc={"subnet_ids": ["subnet-1"], "security_group_ids": ["sg-1"]})
    findings = findings_by_code(
        vpc, endpoint, describe_subnets=subnet, describe_security_groups=other
    )
    assert "SeveralVpcs" in findings
    same = {"SecurityGroups": [{"VpcId": "vpc-1"}]}
    answers = {"describe_subnets": subnet, "describe_security_groups": same}
    assert "NoS3Endpoint" in findings_by_code(
        vpc, endpoint, **answers, describe_vpc_endpoints={"VpcEndpoints": []}
    )


def test_a_busy_account(tmp_path: Path, endpoint: Endpoint) -> None:
    running_ = [{"jobName": name} for name in ("one", "two")]
    answer = {"modelCustomizationJobSummaries": running_}
    findings = findings_by_code(
        job(tmp_path, endpoint), endpoint, list_model_customization_jobs=answer
    )
    assert findings["AccountBusy"].severity == "warning" and "--queue" in str(
        findings["AccountBusy"].fix
    )


def test_what_may_not_be_read_is_unchecked_and_no_failure(
    tmp_path: Path, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint.fault({"operation": "ListFoundationModels", "do": "deny"})
    findings = preflight.check_job(
        job(tmp_path, endpoint),
        CannedAws(AwsLocation(region=REGION, endpoint_url=endpoint.url), {}),
    )
    assert [(f.code, f.severity) for f in findings] == [("CouldNotCheck", "warning")]
    endpoint.fault({"operation": "ListFoundationModels", "do": "deny"})
    titan = findings_by_code(job(tmp_path, endpoint, "titan-text-lite"), endpoint)
    assert titan["ModelEndOfLife"].severity == "error"
    for name in AWS_KEYS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    alone = findings_by_code(job(tmp_path, endpoint), endpoint)
    assert "aws configure" in str(alone["CouldNotCheck"].fix)


def test_findings_from_the_job_file_alone(tmp_path: Path, endpoint: Endpoint) -> None:
    lacking = job(tmp_path, endpoint, role_arn=None, s3_uri=None)
    fields = [f.field for f in preflight.check_job(lacking, Aws(AwsLocation()))]
    assert fields == ["bedrock.role_arn", "bedrock.s3_uri"]
    more = job(tmp_path, endpoint, request={"jobName": "mine"})
    assert findings_by_code(more, endpoint)["BadRequest"].message.count("jobName")
    unknown = job(tmp_path, endpoint, request={"hyperParamaters": {}})
    assert "hyperParamaters" in findings_by_code(unknown, endpoint)["BadRequest"].message
    for changes in (
        {"s3_uri": "s3://bucket-name/dt=2026-01-01"},
        {"s3_uri": "s3://bucket-name/a b"},
        {"custom_model_name": "a--b"},
        {"custom_model_name": "a.b"},
        {"role_arn": "bedrock-job"},
    ):
        with pytest.raises(SpecError):
            job(tmp_path, endpoint, **changes)


def test_the_data_is_checked_by_the_models_own_rules(tmp_path: Path, endpoint: Endpoint) -> None:
    sound = job(tmp_path, endpoint)
    place = BedrockBackend(Home(tmp_path / "home")).for_job(sound)
    assert prepare.check(sound, place).ok
    records = [{"prompt": f"User: hello {n}", "completion": "hi"} for n in range(16)]
    text = "\n".join(json.dumps(record) for record in records)
    (tmp_path / "train.jsonl").write_text(text + "\n")
    codes = {finding.code for finding in prepare.check(sound, place).findings}
    assert "ReservedWord" in codes or any(
        "User:" in f.message for f in prepare.check(sound, place).findings
    )


@pytest.mark.parametrize(
    ("error", "code", "exit_code"),
    [(PermissionDenied("no"), "CouldNotCheck", 0), (CloudUnreachable("no"), "CouldNotReach", 5)],
)
def test_a_check_that_could_not_reach_the_account_is_not_passed(
    tmp_path: Path, endpoint: Endpoint, error: CloudftError, code: str, exit_code: int
) -> None:
    """Refused is a warning: the caller may not look. Out of reach, another check may find more."""
    findings = findings_by_code(job(tmp_path, endpoint), endpoint, list_foundation_models=error)
    assert findings[code].severity == "warning"
    checked = prepare.CheckReport((findings[code],), None, None)
    assert checked.ok and checked.exit_code == exit_code
