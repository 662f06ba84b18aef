"""Jobs of other machines: a plan in a shared bucket chooses no path, location or identity here."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import tiny
from endpoint import SAGEMAKER_TRUST
from job_files import write_job_file
from moto import mock_aws
from policy_simulator import patch_policy_simulator

from cloudft.aws.client import Aws, AwsLocation
from cloudft.backends.aws_base import discovered_plan
from cloudft.backends.bedrock import preflight
from cloudft.backends.bedrock.backend import BedrockBackend
from cloudft.backends.sagemaker import request
from cloudft.backends.sagemaker.backend import SageMakerBackend
from cloudft.errors import CredentialsExpired, DamagedJob, PermissionDenied, ResourceNotFound
from cloudft.evaluate.held_out import find_staged_file, spec_from_record
from cloudft.jobs import lifecycle, listing, prepare
from cloudft.spec.load import load_job
from cloudft.storage.home import Home
from cloudft.storage.store import JobRecord, Store
from cloudft.types import Plan

REGION, BUCKET = "us-east-1", "some-bucket"
ROLE = "arn:aws:iam::000000000000:role/job"
SECTION = {"region": REGION, "role_arn": ROLE, "s3_uri": f"s3://{BUCKET}/team"}
MACHINE = {"image_uri": "pytorch-training:any", "instance_type": "ml.m5.xlarge"}
COLUMNS = {"prompt": "prompt", "completion": "completion"}
OUTSIDE = "../../../outside"
Content = dict[str, Any]
Change = Callable[[Content], Any]


@pytest.fixture(autouse=True)
def moto(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setattr(preflight, "check_job", lambda job, aws: [])  # moto lists no models
    monkeypatch.setattr(BedrockBackend, "records_quota", lambda backend, job: None)  # nor quotas
    with mock_aws():
        client("s3").create_bucket(Bucket=BUCKET)
        trust = json.dumps(SAGEMAKER_TRUST)
        client("iam").create_role(RoleName="job", AssumeRolePolicyDocument=trust)
        patch_policy_simulator(monkeypatch)
        yield


def client(service: str) -> Any:
    return boto3.client(service, region_name=REGION)


@pytest.fixture(params=["bedrock", "sagemaker"])
def backend(request: pytest.FixtureRequest, tmp_path: Path) -> BedrockBackend | SageMakerBackend:
    """Return the backend of a reader, whose home is empty."""
    made = BedrockBackend if request.param == "bedrock" else SageMakerBackend
    return made(Home(tmp_path / "reader"), Aws(AwsLocation(region=REGION)))


def submitted(backend: Any, folder: Path, tiny_model: Path, name: str = "theirs") -> Plan:
    """Submit a job as a colleague, from another home."""
    model = Path("titan-text-express") if backend.name == "bedrock" else tiny_model
    (folder / name).mkdir(parents=True)
    tiny.write_jsonl(folder / name / "test.jsonl", [{"prompt": "held out", "completion": "x"}])
    path = write_job_file(
        folder / name,
        model,
        name=name,
        records=8,
        data={"test": "test.jsonl", "columns": COLUMNS},
        tags={"team": "support"},
        bedrock={**SECTION, "profile": "theirs"},
        sagemaker={**SECTION, **MACHINE},
        hyperparameters={"learningRate": 0.001},
    )
    theirs = type(backend)(Home(folder / "colleague"), backend.aws)
    job = load_job(path, flags={"bedrock.profile": ""})
    staged, _ = prepare.prepare(job, theirs, theirs.home)
    plan: Plan = theirs.plan(staged)
    theirs.submit(plan)
    return plan


def change(plan: Plan, *changes: Change) -> None:
    """Change the plan in S3, as anyone can who may write to the bucket."""
    key = f"team/jobs/{plan.job_id}/plan.json"
    content = json.loads(client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read())
    for one in changes:
        one(content)
    client("s3").put_object(Bucket=BUCKET, Key=key, Body=json.dumps(content))


def put(*path: Any) -> Change:
    """Return a change that sets the last key of `path` within the ones before."""
    *inner, last, value = path

    def do(content: Any) -> None:
        for name in inner:
            content = content[name]
        content[last] = value

    return do


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def nested(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(levels):
        value = {"a": value}
    return value


CHANGES: dict[str, tuple[Change, str]] = {
    "name": (put("name", OUTSIDE), "another job"),
    "token": (put("token", "f" * 32), "another job"),
    "rest-of-token": (lambda c: c.update(token=c["token"][:8] + "0" * 24), "token"),
    "backend": (put("backend", "local"), "backend"),
    "version": (put("version", 2), "version 2"),
    "no-version": (lambda c: c.pop("version"), "version None"),
    "file-name": (lambda c: c["manifest"]["files"]["train"].update(name=OUTSIDE), "plan"),
    "manifest": (put("manifest", "sha256", "0" * 64), "plan"),
    "columns": (put("spec", "data", "columns", {"prompt": "other"}), "was changed"),
    "settings": (put("request", "hyperParameters", {"epochCount": 99}), "was changed"),
    "base-model": (put("spec", "base_model", "someone/elses"), "was changed"),
    "spec-type": (put("spec", []), "expected `object`"),
    "estimate": (put("estimate", "usd", "free"), "expected `object`"),
    "deep": (lambda c: c["spec"].update(note=nested(300)), "more than 100 levels"),
    "long-number": (put("manifest", "seed", 2**70), "more than 64 bits"),
    "manifest-gone": (lambda c: c.pop("manifest"), "missing required field `manifest`"),
}


BODIES = (b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000)
"""What is no plan at all."""


def test_a_plan_that_is_not_the_jobs_is_one_line_and_the_others_are_found(
    backend: Any, tmp_path: Path, tiny_model: Path
) -> None:
    bad, good = (submitted(backend, tmp_path, tiny_model, name) for name in ("bad", "good"))
    key = f"team/jobs/{bad.job_id}/plan.json"
    whole = client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()
    store, before = Store(backend.home.jobs), everything_below(tmp_path)
    for which in (*CHANGES, *BODIES):
        how, said = CHANGES[which] if isinstance(which, str) else (None, "plan.json")
        client("s3").put_object(Bucket=BUCKET, Key=key, Body=which if how is None else whole)
        if how is not None:
            change(bad, how)
        adopted = listing.adopt_untracked_jobs(backend, store)
        [error] = [one for one in adopted if isinstance(one, DamagedJob)]
        assert said in error.message, which
        assert error.job == bad.job_id and error.file == f"s3://{BUCKET}/{key}" and error.fix
        assert store.job_ids() == [good.job_id]
    new = everything_below(tmp_path) - before
    assert {name.partition("/")[0] for name in new} == {"reader"}, "nothing outside of the home"
    client("s3").delete_object(Bucket=BUCKET, Key=key)
    assert listing.adopt_untracked_jobs(backend, store) == []
    client("s3").put_object(Bucket=BUCKET, Key=key, Body=whole)
    [record] = listing.adopt_untracked_jobs(backend, store)
    assert isinstance(record, JobRecord) and record.id == bad.job_id


def test_a_place_an_identity_and_paths_are_never_taken_from_a_plan(
    backend: Any, tmp_path: Path, tiny_model: Path
) -> None:
    plan = submitted(backend, tmp_path, tiny_model)
    secret = tmp_path / "secret.jsonl"
    secret.write_text('{"prompt": "mine", "completion": "x"}\n')
    elsewhere = {"region": "eu-west-9", "profile": "admin", "endpoint_url": "http://127.0.0.1:9"}
    change(
        plan,
        put("request", "place", elsewhere),
        put("request", "machine", [{"parameters": {"stateMachineArn": "arn:x", "name": "x"}}]),
        put("spec", "data", "test", str(secret)),
        put("spec", "data", "train", [str(secret)]),
        lambda content: content["manifest"]["sources"][0].update(path=str(secret)),
    )
    [record] = listing.adopt_untracked_jobs(backend, Store(backend.home.jobs))
    assert isinstance(record, JobRecord) and record.id == plan.job_id
    kept = (record.folder / "record.json").read_text()
    for word in (str(secret), "eu-west-9", "admin", "127.0.0.1:9", "arn:x", str(tmp_path)):
        assert word not in kept
    assert record.request["place"] == {"region": REGION, "profile": None, "endpoint_url": None}
    assert lifecycle.backend_for(record, backend.home).aws.location == AwsLocation(region=REGION)
    spec = spec_from_record(record)
    assert spec is not None and spec.data.test is None and spec.tags == {"team": "support"}
    assert spec.data.columns == COLUMNS
    assert find_staged_file(record, backend.home, "train") is None
    assert record.hyper_parameters == plan.request["hyperParameters"]
    assert "calls" not in record.request and "machine" not in record.request
    assert Store(backend.home.jobs).get(record.id) == replace(
        record, backend_job_id=Store(backend.home.jobs).get(record.id).backend_job_id
    )


def test_a_job_of_an_older_build_is_taken_by_its_name_and_token(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = BedrockBackend(Home(tmp_path / "reader"), Aws(AwsLocation(region=REGION)))
    plan = submitted(backend, tmp_path, tiny_model)
    [summary] = client("bedrock").list_model_customization_jobs()["modelCustomizationJobSummaries"]
    arn = summary["jobArn"]
    client("bedrock").untag_resource(resourceARN=arn, tagKeys=["cloudft:plan"])
    [record] = listing.adopt_untracked_jobs(backend, Store(backend.home.jobs))
    assert isinstance(record, JobRecord) and record.id == plan.job_id
    assert record.base_model == "titan-text-express"


def test_the_digest_is_one_for_all_who_submit_a_job_and_no_part_of_its_token(
    tmp_path: Path, tiny_model: Path
) -> None:
    backend = BedrockBackend(Home(tmp_path / "reader"), Aws(AwsLocation(region=REGION)))
    plans = [submitted(backend, tmp_path / place, tiny_model) for place in ("here", "there")]
    first, second = plans
    assert first.token == second.token and first.spec != second.spec
    assert first.request["calls"][-1] == second.request["calls"][-1]
    tags = {tag["key"]: tag["value"] for tag in first.request["calls"][-1]["parameters"]["jobTags"]}
    content = client("s3").get_object(Bucket=BUCKET, Key=f"team/jobs/{first.job_id}/plan.json")
    assert discovered_plan.plan_digest(json.loads(content["Body"].read())) == tags["cloudft:plan"]


def test_the_trainer_request_of_another_machine_names_no_file_of_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    backend = SageMakerBackend(Home(tmp_path / "reader"), Aws(AwsLocation(region=REGION)))
    plan = submitted(backend, tmp_path, tiny_model)
    change(
        plan,
        put("request", "home", "data", {"train": {"path": OUTSIDE, "sha256": "0" * 64}}),
        put(
            "request", "home", "model", {"name": "x", "weights": [{"kind": "folder", "path": "/"}]}
        ),
        put("request", "calls", []),
    )
    [record] = listing.adopt_untracked_jobs(backend, Store(backend.home.jobs))
    assert isinstance(record, JobRecord)
    home = record.request["home"]
    assert home["data"] == plan.request["home"]["data"]
    assert home["model"] == {"name": discovered_plan.REMOTE_PATH, "weights": []}
    assert {k: home[k] for k in ("method", "lora", "seed")} == {
        k: plan.request["home"][k] for k in ("method", "lora", "seed")
    }


def test_a_job_of_another_machine_is_resumed_as_sagemaker_describes_it(
    tmp_path: Path, tiny_model: Path
) -> None:
    backend = SageMakerBackend(Home(tmp_path / "reader"), Aws(AwsLocation(region=REGION)))
    plan = submitted(backend, tmp_path, tiny_model)
    answer = client("sagemaker").describe_training_job(TrainingJobName=plan.job_id)
    sent = plan.request["calls"][-1]["parameters"]
    request_again = request.parameters_from_description(answer, {"team": "support"})
    assert (
        request_again.pop("EnableManagedSpotTraining", False) == sent["EnableManagedSpotTraining"]
    )
    assert request_again["RoleArn"] == ROLE
    for name in ("HyperParameters", "Tags", "OutputDataConfig", "CheckpointConfig"):
        assert request_again[name] == sent[name]


def test_a_job_that_may_not_be_read_is_one_line_and_an_expired_login_ends_the_list() -> None:
    def take(name: str, there: str) -> None:
        if name == "expired":
            raise CredentialsExpired("log in")
        if name == "denied":
            raise PermissionDenied("s3://theirs can't be read", fix="ask for it.")
        if name == "gone":
            raise ResourceNotFound("no plan")

    names = [(name, f"arn:{name}") for name in ("foreign", "denied", "gone", "expired")]
    left = discovered_plan.discover_each(names, take)
    error = next(left)
    assert isinstance(error, DamagedJob) and error.job == "denied" and error.file == "arn:denied"
    with pytest.raises(CredentialsExpired):
        next(left)
