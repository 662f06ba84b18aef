"""Values that a job file may not have: each is a finding with file, line, field and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from processes import Cli
from pydantic import TypeAdapter

from cloudft.aws.client import Aws, AwsLocation, check_profile, create_client
from cloudft.aws.request_validation import constraint_violations, load_service_model
from cloudft.backends.bedrock import preflight as bedrock
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.sagemaker import preflight as sagemaker
from cloudft.errors import CheckFailed, CloudRefused, NoSuchProfile, SpecError
from cloudft.jobs.prepare import check, prepare
from cloudft.spec.field_index import known_fields as levels
from cloudft.spec.fields import KMS_KEY, MODEL_NAME, ROLE_ARN, S3_URI
from cloudft.spec.load import LoadedJob, load_job
from cloudft.storage.home import Home
from cloudft.types import Finding

ROLE = "arn:aws:iam::123456789012:role/job"
KEY = "arn:aws:kms:us-east-1:123456789012:key/1b2c3d4e-1111-2222-3333-444455556666"
BASE: dict[str, Any] = {
    "name": "a",
    "base_model": "nova-micro",
    "data": {"train": "train.jsonl"},
    "bedrock": {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://my-bucket/prefix"},
}
TEACHER = {"customization_type": "DISTILLATION", "distillation": {"teacher": "no teacher"}}


@pytest.fixture(autouse=True)
def no_aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    (tmp_path / "config").write_text("[default]\nregion = us-east-1\n[profile team]\n")


def job_file(folder: Path, changes: Mapping[str, Any]) -> Path:
    """Write a valid job file with fields replaced; `a__b` names a field of a mapping."""
    spec = json.loads(json.dumps(BASE))
    for key, value in changes.items():
        *outer, last = key.split("__")
        inner = spec
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    lines = [f'{{"prompt": "question {n}", "completion": "answer"}}\n' for n in range(100)]
    (folder / "train.jsonl").write_text("".join(lines))
    path = folder / "cloudft.yaml"
    path.write_text(yaml.safe_dump(spec, sort_keys=False))
    return path


def findings(folder: Path, changes: Mapping[str, Any]) -> list[Finding]:
    """Return the findings of the job file and of the check for Bedrock, without an account."""
    path = job_file(folder, changes)
    try:
        job = load_job(path)
    except SpecError as error:
        return list(error.findings)
    backend = BedrockBackend(Home(folder / "home")).for_job(job)
    return [f for f in check(job, backend).findings if f.code != "CouldNotCheck"]


EU = "arn:aws:bedrock:eu-west-1::foundation-model/amazon.nova-micro-v1:0:128k"
BAD: list[tuple[dict[str, Any], str]] = [
    ({"tags": {"aws:team": "a"}}, "tags.aws:team"),
    ({"tags": {"AWS:team": "a"}}, "tags.AWS:team"),
    ({"tags": {"cloudft:job": "a"}}, "tags.cloudft:job"),
    ({"tags": {"k" * 129: "a"}}, f"tags.{'k' * 129}"),
    ({"tags": {" team": "a"}}, "tags. team"),
    ({"tags": {"team": "v" * 257}}, "tags.team"),
    ({"tags": {"team": "a\tb"}}, "tags.team"),
    ({"tags": {f"k{n}": "a" for n in range(47)}}, "tags"),
    ({"bedrock__profile": "nobody"}, "bedrock.profile"),
    ({"base_model": "arn:nothing"}, "base_model"),
    ({"base_model": "arn:aws:s3:::bucket"}, "base_model"),
    ({"base_model": EU}, "base_model"),
    ({"bedrock__role_arn": "arn:aws:iam:::role/job"}, "bedrock.role_arn"),
    ({"bedrock__role_arn": "arn:aws:iam::123456789012:role/a b"}, "bedrock.role_arn"),
    ({"bedrock__role_arn": f"{ROLE}{'x' * 64}"}, "bedrock.role_arn"),
    ({"bedrock__role_arn": "arn:aws:iam::123456789012:user/me"}, "bedrock.role_arn"),
    ({"bedrock__kms_key_id": KEY.replace("us-east-1", "")}, "bedrock.kms_key_id"),
    ({"bedrock__kms_key_id": "-" * 36}, "bedrock.kms_key_id"),
    ({"bedrock__kms_key_id": KEY.replace("us-east", "eu-west")}, "bedrock.kms_key_id"),
    ({"bedrock__s3_kms_key_id": KEY.replace("us-east", "eu-west")}, "bedrock.s3_kms_key_id"),
    (
        {"bedrock__vpc": {"subnet_ids": ["sg-1"], "security_group_ids": ["sg-1"]}},
        "bedrock.vpc.subnet_ids.0",
    ),
    (
        {"bedrock__vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": ["subnet-1"]}},
        "bedrock.vpc.security_group_ids.0",
    ),
    (
        {"bedrock__vpc": {"subnet_ids": ["subnet-1"] * 2, "security_group_ids": ["sg-1"]}},
        "bedrock.vpc.subnet_ids",
    ),
    (
        {"bedrock__vpc": {"subnet_ids": [], "security_group_ids": ["sg-1"]}},
        "bedrock.vpc.subnet_ids",
    ),
    (
        {"bedrock__vpc": {"subnet_ids": ["subnet-1"], "security_group_ids": list("abcdef")}},
        "bedrock.vpc.security_group_ids",
    ),
    ({"bedrock__s3_uri": "s3://a..b/x"}, "bedrock.s3_uri"),
    ({"bedrock__s3_uri": "s3://192.168.0.1/x"}, "bedrock.s3_uri"),
    ({"bedrock__s3_uri": f"s3://my-bucket/{'x' * 1000}"}, "bedrock.s3_uri"),
    ({"bedrock__output_s3_uri": f"s3://my-bucket/{'x' * 990}"}, "bedrock.output_s3_uri"),
    ({"data__train": "s3://"}, "data.train"),
    ({"data__train": "S3://my-bucket/x.jsonl"}, "data.train"),
    ({"data__train": ["train.jsonl", "s3:/my-bucket/x.jsonl"]}, "data.train"),
    ({"data__validation": "s3://my bucket/x"}, "data.validation"),
    ({"data__columns": {"prompt": "question"}}, "data.columns"),
    ({"data__columns": {"prompt": "q", "completion": "a"}}, "data.columns"),
    ({"data__columns": {"prompt": "prompt", "completion": "prompt"}}, "data.columns"),
    ({"bedrock__endpoint_url": "http://["}, "bedrock.endpoint_url"),
    ({"bedrock__endpoint_url": "http://:80"}, "bedrock.endpoint_url"),
    ({"bedrock__endpoint_url": "http://localhost:70000"}, "bedrock.endpoint_url"),
    ({"bedrock__request": {"customizationType": "NONE"}}, "bedrock.request"),
    ({"bedrock__request": {"roleArn": "x"}}, "bedrock.request"),
    ({"bedrock__request": {"nothing": 1}}, "bedrock.request"),
    (TEACHER, "distillation.teacher"),
    ({"evaluate__labels": ["a", "a"]}, "evaluate.labels"),
    ({"sagemaker__image_uri": "an image"}, "sagemaker.image_uri"),
]


@pytest.mark.parametrize(("changes", "field"), BAD, ids=lambda value: str(value)[:70])
def test_each_is_a_finding_with_its_place_and_a_remedy(
    tmp_path: Path, changes: dict[str, Any], field: str
) -> None:
    found = [f for f in findings(tmp_path, changes) if f.severity == "error"]
    assert [f.field for f in found] == [field] * len(found) and found, found
    for finding in found:
        assert finding.file == str(tmp_path / "cloudft.yaml") and finding.line
        assert finding.message and finding.fix and finding.code


GOOD: list[dict[str, Any]] = [
    {},
    {"tags": {"team": "", "a b": "c", "Laws:x": "y", "k" * 128: "v" * 256}},
    {"tags": {f"k{n}": "a" for n in range(46)}},
    {"base_model": EU.replace("eu-west", "us-east")},
    {"bedrock__role_arn": "arn:aws-us-gov:iam::123456789012:role/service-role/a+b=c,d.e@f-_g"},
    {"bedrock__kms_key_id": KEY, "bedrock__s3_kms_key_id": f"mrk-{'0' * 32}"},
    {"bedrock__kms_key_id": "alias/team/key", "bedrock__profile": "team"},
    {"bedrock__s3_uri": "s3://my.bucket.name"},
    {"bedrock__vpc": {"subnet_ids": ["subnet-1", "subnet-2"], "security_group_ids": ["sg-1"]}},
    *({"bedrock__endpoint_url": f"{url}"} for url in ("http://[::1]:4566/", "https://a.b-c.d/e")),
    {"data__columns": {"prompt": "prompt", "completion": "completion"}},
]


@pytest.mark.parametrize("changes", GOOD, ids=lambda value: str(value)[:70])
def test_what_is_right_passes(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert findings(tmp_path, changes) == []


def test_tags_that_differ_only_in_case_are_reported(tmp_path: Path) -> None:
    [reported] = findings(tmp_path, {"tags": {"Team": "a", "team": "b"}})
    assert (reported.code, reported.severity, reported.field, reported.line) == (
        *("TagTwice", "warning", "tags.team"),
        *(11,),
    )


def test_columns_that_name_nothing_are_refused_by_submit_and_convert_too(
    tmp_path: Path, cli: Cli
) -> None:
    path = job_file(tmp_path, {"data__columns": {"prompt": "q", "completion": "a"}})
    with pytest.raises(CheckFailed) as refused:
        job, home = load_job(path), Home(tmp_path / "home")
        prepare(job, _Offline(home).for_job(job), home)
    assert (refused.value.file, refused.value.field) == (str(path), "data.columns")
    done = cli(
        *("data", "convert", "train.jsonl", "--column", "prompt=q", "--column", "completion=a"),
        *("--to", "messages", "--out", "out.jsonl"),
    )
    assert done.returncode == 3 and "no record has a column 'q', 'a'" in done.stderr
    assert not (tmp_path / "out.jsonl").exists()


class _Offline(BedrockBackend):
    def check(self, job: LoadedJob) -> list[Finding]:
        return []


def test_general_data_need_not_have_the_columns(tmp_path: Path) -> None:
    (tmp_path / "own.csv").write_text("q,a\n" + "".join(f"question {n},yes\n" for n in range(40)))
    own = {"prompt": "q", "completion": "a"}
    mix = [{"path": "train.jsonl", "share": 0.2}]
    changes = {"data__train": "own.csv", "data__columns": own, "data__mix": mix}
    assert [f for f in findings(tmp_path, changes) if f.severity == "error"] == []


def test_a_profile_that_is_not_configured_is_named_with_those_that_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cli: Cli
) -> None:
    check_profile(AwsLocation(profile="team"))
    with pytest.raises(NoSuchProfile, match="no profile 'nobody'") as refused:
        create_client("s3", AwsLocation(profile="nobody"))
    assert "default, team" in str(refused.value.fix) and refused.value.exit_code == 4
    with pytest.raises(NoSuchProfile):
        Aws(AwsLocation(profile="nobody")).client("s3")
    monkeypatch.setenv("AWS_PROFILE", "somebody")
    with pytest.raises(NoSuchProfile, match="somebody"):
        create_client("s3")
    monkeypatch.delenv("AWS_PROFILE")
    done = cli("list", "--backend", "bedrock", "--profile", "nobody")
    assert "no profile 'nobody'" in done.stderr + done.stdout
    path = job_file(tmp_path, {"bedrock__stack": "team", "bedrock__profile": "nobody"})
    done = cli("check", path, "--backend", "bedrock")
    assert done.returncode == 3 and "[NoSuchProfile]" in done.stdout + done.stderr
    assert "bedrock.profile" in done.stdout + done.stderr


@pytest.mark.parametrize("url", ["http://[", "http://:80", "nonsense", "http://a b"])
def test_an_endpoint_that_is_no_address_is_no_fault_of_ours(url: str) -> None:
    with pytest.raises(CloudRefused) as refused:
        create_client("bedrock", AwsLocation(region="us-east-1", endpoint_url=url))
    assert "correct --endpoint-url" in str(refused.value.fix)


def test_our_own_rules_are_within_the_apis() -> None:
    """Whatever the job file accepts, the service model accepts: no rule is looser than AWS's."""
    shape = load_service_model("bedrock").operation_model("CreateModelCustomizationJob").input_shape
    names = {
        "roleArn": (ROLE_ARN, ["arn:aws:iam::123456789012:role/x", "arn:aws:iam:::role/x", "x"]),
        "customModelKmsKeyId": (KMS_KEY, [KEY, "alias/x", "alias/", "x" * 36]),
        "customModelName": (MODEL_NAME, ["a-b", "a--b", "", "a" * 64]),
    }
    for name, (kind, values) in names.items():
        for value in values:
            taken = _takes(TypeAdapter(kind), value)
            broken = [p for p in constraint_violations(shape, {name: value}) if f"'{name}'" in p]
            assert not (taken and broken), (name, value, broken)
    uri = load_service_model("bedrock").shape_for("S3Uri")
    assert uri.metadata["max"] == 1024
    assert _takes(TypeAdapter(S3_URI), "s3://my-bucket/prefix")


def _takes(adapter: Any, value: str) -> bool:
    try:
        adapter.validate_python(value)
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("fields", "service", "operation"),
    [
        (bedrock.REQUEST_FIELDS, "bedrock", "CreateModelCustomizationJob"),
        (sagemaker.REQUEST_FIELDS, "sagemaker", "CreateTrainingJob"),
    ],
)
def test_members_that_findings_are_placed_by_are_the_apis(
    fields: Mapping[str, str], service: str, operation: str
) -> None:
    known = {".".join((*level, name)) for level, names in levels().items() for name in names}
    for path, field in fields.items():
        shape = load_service_model(service).operation_model(operation).input_shape
        for part in path.split("."):
            shape = shape.members[part]
        assert field in known, field
