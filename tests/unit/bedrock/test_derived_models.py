"""Copies and created models: what is refused before a call, the request, its token, the states."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

from cloudft.aws.client import Aws, AwsLocation
from cloudft.aws.request_validation import load_service_model, validate_request
from cloudft.backends.bedrock import sharing
from cloudft.backends.bedrock.derived_models import caller_policy, checks, request, states
from cloudft.backends.bedrock.derived_models.backend import CopyBackend, CustomModelBackend
from cloudft.backends.bedrock.derived_models.request import DerivedJob
from cloudft.catalogue import find_catalogue_model, load_copy_rules
from cloudft.data.staging.manifest import build_manifest
from cloudft.endpoint.iam.policies import (
    ALLOWED,
    AccessRequest,
    evaluate_policies,
    list_statements,
)
from cloudft.errors import JobStateConflict, ResourceConflict, ResourceNotFound, UsageError
from cloudft.spec.load import load_spec
from cloudft.storage.home import Home

ACCOUNT = "111122223333"
NOVA = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model/amazon.nova-micro-v1:0:128k/abcdefghijkl"
PACKAGE = f"arn:aws:sagemaker:us-east-1:{ACCOUNT}:model-package/nova/3"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/reader"
TIME = datetime(2026, 11, 30, tzinfo=timezone.utc)


def derived(source: str = NOVA, model: str = "nova-micro", **bedrock: Any) -> DerivedJob:
    kind = bedrock.pop("kind", "FINE_TUNING")
    spec: dict[str, Any] = {
        "name": bedrock.pop("name", "router-copy"),
        "base_model": model,
        "customization_type": kind,
        "data": {"train": "none.jsonl"},
        "bedrock": {"region": "eu-west-1"} | bedrock,
    }
    if kind == "DISTILLATION":
        spec["distillation"] = {"teacher": "amazon.nova-pro-v1:0"}
    job = load_spec(spec)
    return DerivedJob(job, build_manifest(kind, "", 0, {}, ()), Path(), source=source)


def codes(findings: Iterator[Any]) -> list[tuple[str, str]]:
    return [(finding.severity, finding.code) for finding in findings]


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (derived(), []),
        (derived(region="sa-east-1"), [("error", "CopyRegion")]),
        (
            derived(region="sa-east-1", endpoint_url="http://127.0.0.1:9"),
            [("warning", "CopyRegion")],
        ),
        (derived(model="nova-2-lite"), [("error", "CopyNotSupported")]),
        (derived(model="llama-3.1-8b", region="us-east-2"), []),
        (derived(kind="DISTILLATION"), [("warning", "CopyDistilled")]),
        (derived(region=None), [("error", "MissingValue")]),
        (derived("arn:aws:bedrock:us-east-1:1:custom-model/x/y"), [("error", "BadRequest")]),
    ],
)
def test_a_copy_is_checked_by_the_tables_of_aws(
    job: DerivedJob, expected: list[tuple[str, str]]
) -> None:
    assert codes(checks.check_copy(job)) == expected


def test_a_refused_copy_names_model_regions_and_source() -> None:
    [finding] = checks.check_copy(derived(model="llama-3.1-8b", region="eu-west-1"))
    assert "us-east-1, us-east-2, us-west-2, not to eu-west-1" in finding.message
    assert "copy-model-support.html" in finding.message and "2026-10" in finding.message


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (derived(PACKAGE, "nova-2-lite", region="us-east-1"), []),
        (derived("s3://escrow/run/", "nova-2-lite", import_role_arn=ROLE), []),
        (derived("s3://escrow/run/", "nova-2-lite"), [("error", "MissingValue")]),
        (derived(PACKAGE, "nova-2-lite"), [("error", "CreateRegion")]),
        (derived(PACKAGE, "llama-3.3-70b", region="us-east-1"), [("error", "CreateNotSupported")]),
        (
            derived(PACKAGE, "nova-pro", region="us-east-1", kms_key_id="alias/mine"),
            [("error", "BadRequest")],
        ),
        (derived(PACKAGE, "nova-pro", region=None), [("error", "MissingValue")]),
    ],
)
def test_a_model_of_sagemaker_is_checked(job: DerivedJob, expected: list[tuple[str, str]]) -> None:
    assert codes(checks.check_create(job)) == expected


def test_the_requests_are_valid_and_carry_name_token_and_tags() -> None:
    for build, operation, job in (
        (request.copy_parameters, "CreateModelCopyJob", derived()),
        (request.create_parameters, "CreateCustomModel", derived(PACKAGE, "nova-2-lite")),
        (
            request.create_parameters,
            "CreateCustomModel",
            derived("s3://escrow/run/", "nova-2-lite", import_role_arn=ROLE),
        ),
    ):
        call = request.create_call(job, "any", build)
        parameters = call.parameters
        assert not list(validate_request("bedrock", operation, parameters))
        token, name = parameters["clientRequestToken"], f"router-copy-{token_of(job, build)[:8]}"
        assert token == token_of(job, build)
        assert name in (parameters.get("targetModelName"), parameters.get("modelName"))
        tags = parameters.get("targetModelTags") or parameters["modelTags"]
        assert {tag["key"]: tag["value"] for tag in tags} == {
            "cloudft:job": name,
            "cloudft:token": token,
        }


def token_of(job: DerivedJob, build: Any = request.copy_parameters) -> str:
    return request.request_token(job, build)


def test_the_token_follows_from_source_region_name_and_key_not_from_the_profile() -> None:
    key = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{'1' * 8}-1111-1111-1111-{'1' * 12}"
    others = [
        derived(NOVA.replace("abc", "xyz")),
        derived(region="eu-west-3"),
        derived(name="other-copy"),
        derived(kms_key_id=key),
    ]
    assert len({token_of(job) for job in [derived(), *others]}) == 5
    assert token_of(derived(profile="team")) == token_of(derived())


def test_every_status_of_botocore_is_known() -> None:
    model = load_service_model("bedrock")
    assert set(states.MODEL_STATUSES) == set(model.shape_for("ModelStatus").enum)
    assert set(model.shape_for("ModelCopyJobStatus").enum) == {"InProgress", "Completed", "Failed"}


def test_the_rules_name_models_of_the_catalogue() -> None:
    rules = load_copy_rules()
    assert all(find_catalogue_model(alias) for alias in {*rules.copy_to, *rules.share_from})
    assert rules.copy_source.date and rules.share_source.date


class FakeAws(Aws):
    """Answers calls from a table; what is missing there does not exist."""

    def __init__(self, answers: Mapping[str, Any], endpoint_url: str | None = None) -> None:
        super().__init__(AwsLocation("eu-west-1", endpoint_url=endpoint_url))
        self.answers = answers

    def call(self, failure: str, service: str, operation: str, **parameters: object) -> Any:
        if operation not in self.answers:
            raise ResourceNotFound(f"{failure}: {operation}")
        return self.answers[operation]

    def paginate(
        self, failure: str, service: str, operation: str, key: str, **parameters: object
    ) -> Iterator[Any]:
        yield from self.answers.get(operation, {}).get(key, ())


def copy_job(status: str = "Completed", **more: Any) -> dict[str, Any]:
    return {
        "jobArn": f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:model-copy-job/abcdefghijkl",
        "status": status,
        "creationTime": TIME,
        "sourceModelArn": NOVA,
        "targetModelArn": NOVA.replace("us-east-1", "eu-west-1"),
        "targetModelName": "router-copy",
        **more,
    }


def test_a_copy_of_that_name_by_others_is_a_conflict(tmp_path: Path) -> None:
    plan = CopyBackend(Home(tmp_path)).plan(derived())
    call = plan.request["calls"][0]["parameters"]
    name = call["targetModelName"]
    for other in (
        {"sourceModelArn": NOVA.replace("abc", "xyz")},
        {"targetModelTags": [{"key": "cloudft:token", "value": "another"}]},
        {"targetModelTags": []},
    ):
        found = {"modelCopyJobSummaries": [copy_job(**{"targetModelName": name, **other})]}
        location = plan.request["place"]
        aws = FakeAws({"list_model_copy_jobs": found})
        aws.location = AwsLocation(**location)
        with pytest.raises(ResourceConflict, match="another one"):
            CopyBackend(Home(tmp_path), aws).find_submitted(plan)
    own = copy_job(targetModelName=name, targetModelTags=call["targetModelTags"])
    aws = FakeAws({"list_model_copy_jobs": {"modelCopyJobSummaries": [own]}})
    aws.location = AwsLocation(**plan.request["place"])
    assert CopyBackend(Home(tmp_path), aws).find_submitted(plan) == own["jobArn"]


def test_a_share_that_failed_is_not_taken_for_one() -> None:
    name, tags = f"cloudft-router-{ACCOUNT}", [{"key": "cloudft:job", "value": "router"}]
    made = {"name": name, "tags": tags, "resourceShareArn": "arn:share", "status": "FAILED"}
    aws = FakeAws({"get_resource_shares": {"resourceShares": [made]}})
    share = sharing.plan_share(aws, NOVA, "router", ACCOUNT)
    with pytest.raises(JobStateConflict, match="failed") as failed:
        sharing.create_share(aws, share)
    assert "--stop" in str(failed.value.fix)
    made["status"] = "ACTIVE"
    share = sharing.plan_share(aws, NOVA, "router", ACCOUNT)
    assert sharing.create_share(aws, share).arn == "arn:share"


def test_a_running_copy_has_no_model_and_a_failed_one_says_why(tmp_path: Path) -> None:
    def state(job: Mapping[str, Any]) -> Any:
        aws = FakeAws({"get_model_copy_job": job, "get_custom_model": {}})
        return CopyBackend(Home(tmp_path), aws).describe(str(job["jobArn"]))

    assert state(copy_job("InProgress")).summary == {"arn": copy_job()["jobArn"]}
    failed = state(copy_job("Failed", failureMessage="no access to the key"))
    assert failed.status == "Failed" and failed.failure_message == "no access to the key"
    assert state(copy_job()).summary["customModel"].startswith("arn:aws:bedrock:eu-west-1:")


def test_on_demand_is_refused_where_bedrock_has_none(tmp_path: Path) -> None:
    answers = {"get_model_copy_job": copy_job(), "get_custom_model": {}}
    arn = copy_job()["jobArn"]
    backend = CopyBackend(Home(tmp_path), FakeAws(answers))
    with pytest.raises(UsageError, match="on demand in us-east-1 alone, not in eu-west-1"):
        backend.plan_serving(arn, provisioned=False, units=1, hours=None)
    plan = backend.plan_serving(arn, provisioned=True, units=1, hours=None)
    assert plan.call["parameters"]["modelId"] == copy_job()["targetModelArn"]
    own = CopyBackend(Home(tmp_path), FakeAws(answers, "http://127.0.0.1:9"))
    assert own.plan_serving(arn, provisioned=False, units=1, hours=None).kind == "on-demand"


def test_a_failed_creation_is_a_failed_job(tmp_path: Path) -> None:
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:custom-model/imported/abcdefghijkl"
    model = {
        "modelArn": arn,
        "modelName": "router",
        "modelStatus": "Failed",
        "creationTime": TIME,
        "failureMessage": "no access to the artifacts",
    }
    aws = FakeAws({"get_custom_model": model})
    state = CustomModelBackend(Home(tmp_path), aws).describe(arn)
    assert state.status == "Failed" and state.failure_message == "no access to the artifacts"


def test_the_policy_of_a_copy_allows_each_of_its_calls_and_no_other_region() -> None:
    key = f"arn:aws:kms:eu-west-1:{ACCOUNT}:key/{'1' * 8}-1111-1111-1111-{'1' * 12}"
    statements = list_statements(caller_policy.copy_policy(derived(kms_key_id=key)))
    target = f"arn:aws:bedrock:eu-west-1:{ACCOUNT}:"
    here, there = {"aws:RequestedRegion": "eu-west-1"}, {"aws:RequestedRegion": "us-west-2"}
    model, job = f"{target}custom-model/any/abcdefghijkl", f"{target}model-copy-job/abcdefghijkl"
    via = {"kms:ViaService": "bedrock.eu-west-1.amazonaws.com"}
    source_key = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/any"
    for action, resource, context, decision in (
        ("bedrock:CreateModelCopyJob", NOVA, here, ALLOWED),
        ("bedrock:CreateModelCopyJob", NOVA, there, "implicitDeny"),
        ("bedrock:CreateModelCopyJob", NOVA.replace("abc", "xyz"), here, "implicitDeny"),
        ("bedrock:GetModelCopyJob", job, {}, ALLOWED),
        ("bedrock:ListModelCopyJobs", "*", {}, ALLOWED),
        ("bedrock:GetCustomModel", model, {}, ALLOWED),
        ("bedrock:TagResource", model, {}, ALLOWED),
        ("bedrock:DeleteCustomModel", model, {}, "implicitDeny"),
        ("kms:CreateGrant", key, via, ALLOWED),
        ("kms:CreateGrant", source_key, via, "implicitDeny"),
        ("kms:Decrypt", source_key, via, ALLOWED),
    ):
        assert evaluate_policies(statements, AccessRequest(action, resource, context)) == decision


def test_the_policy_of_a_model_of_sagemaker_passes_the_role_to_bedrock_alone() -> None:
    job = derived("s3://escrow/run/", "nova-2-lite", import_role_arn=ROLE)
    statements = list_statements(caller_policy.create_policy(job))
    for service, decision in (("bedrock", ALLOWED), ("lambda", "implicitDeny")):
        context = {"iam:PassedToService": f"{service}.amazonaws.com"}
        request_ = AccessRequest("iam:PassRole", ROLE, context)
        assert evaluate_policies(statements, request_) == decision
    package = caller_policy.create_policy(derived(PACKAGE, "nova-2-lite"))
    assert "iam:PassRole" not in str(package)
