"""Every statement of the base stack: what it is for is allowed, and all else is not."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from base_stack import (
    ACCOUNT,
    ALL_OPTIONS,
    REGION,
    list_permissions,
    people_statements,
    policy_statements,
    resolve_outputs,
    resolve_resources,
    without_action,
)
from hypothesis import given
from hypothesis import strategies as st
from job_files import write_job_file

from cloudft import catalogue
from cloudft.aws.permissions import RequiredPermission
from cloudft.aws.request_validation import load_service_model
from cloudft.backends.bedrock import required_permissions
from cloudft.backends.bedrock.model_import.preflight import role_permissions as import_needs
from cloudft.backends.sagemaker.required_permissions import role_permissions as sagemaker_needs
from cloudft.endpoint.iam.policies import AccessRequest, allows_assume_role, evaluate_policies
from cloudft.spec.load import LoadedJob, load_job

KEY = f"arn:aws:kms:{REGION}:{ACCOUNT}:key/{'0' * 36}"
ROLE = policy_statements(ALL_OPTIONS, "BedrockRole")
SERVICES = ("s3", "kms", "bedrock", "iam", "sts", "lambda", "logs", "sns", "events", "budgets")
OUTSIDE = (
    "arn:aws:s3:::team-databucket/neighbor/data/x",
    "arn:aws:s3:::team-databucket/cloudft-too/data/x",
    "arn:aws:s3:::team-outputbucket/neighbor/jobs/x",
    "arn:aws:s3:::team-logbucket/data/x",
    "arn:aws:s3:::somebody-elses/cloudft/data/x",
    "arn:aws:s3:::somebody-elses",
    f"arn:aws:kms:{REGION}:{ACCOUNT}:key/another",
    f"arn:aws:iam::{ACCOUNT}:role/admin",
    f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:another",
    f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-customization-job/x",
    f"arn:aws:bedrock:{REGION}::foundation-model/another",
)


def stack_job(folder: Path, **more: Any) -> LoadedJob:
    """A job as the stack's outputs make it, that needs everything at once."""
    reported = resolve_outputs(ALL_OPTIONS)
    section = {
        "region": REGION,
        "role_arn": reported["BedrockRoleArn"],
        "s3_uri": f"s3://{reported['DataBucketName']}/{reported['Prefix']}",
        "output_s3_uri": f"s3://{reported['OutputBucketName']}/{reported['Prefix']}",
        "kms_key_id": reported["KeyArn"],
        "vpc": {"subnet_ids": ["team-SubnetA"], "security_group_ids": ["team-JobSecurityGroup"]},
    }
    path = write_job_file(
        folder,
        Path("nova-micro"),
        bedrock=section,
        distillation={"teacher": ALL_OPTIONS["TeacherModelArns"]},
        reinforcement={"lambda_arn": ALL_OPTIONS["GraderFunctionArn"]},
        customization_type="DISTILLATION",
        hyperparameters={},
        **more,
    )
    text = path.read_text()
    for setting in ("batchSize: 4", "learningRate: 0.01", "learningRateWarmupSteps: 0"):
        text = text.replace(setting, "")
    path.write_text(text)
    return load_job(path)


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> LoadedJob:
    return stack_job(tmp_path_factory.mktemp("job"))


def requested(need: RequiredPermission) -> AccessRequest:
    one = need.as_simulated()
    return AccessRequest(one.action, one.resource, dict(one.context_keys))


def of_role(job: LoadedJob) -> list[RequiredPermission]:
    # Each customization type needs permissions of its own: the teacher's, or the grader's.
    graded = job.spec.model_copy(update={"customization_type": "REINFORCEMENT_FINE_TUNING"})
    keys = {"team-databucket": KEY, "team-outputbucket": KEY}
    return [
        need
        for one in (job, dataclasses.replace(job, spec=graded))
        for need in required_permissions.role_permissions(one, keys)
    ]


def test_the_role_may_do_all_that_a_job_needs(job: LoadedJob) -> None:
    refused = [n for n in of_role(job) if evaluate_policies(ROLE, requested(n)) != "allowed"]
    assert refused == []


@pytest.mark.parametrize(("sid", "action"), list_permissions(ROLE), ids=" ".join)
def test_each_permission_of_the_role_is_needed(job: LoadedJob, sid: str, action: str) -> None:
    left = without_action(ROLE, sid, action)
    refused = {n.action for n in of_role(job) if evaluate_policies(left, requested(n)) != "allowed"}
    assert refused == {action}


def actions() -> Iterator[str]:
    """All that botocore knows of these services, as IAM names most of it."""
    for service in SERVICES:
        yield from (f"{service}:{name}" for name in load_service_model(service).operation_names)


@pytest.mark.parametrize("resource", OUTSIDE)
def test_the_role_may_do_nothing_to_anything_else(resource: str) -> None:
    context = {
        "s3:prefix": "neighbor/data/",
        "kms:ViaService": f"s3.{REGION}.amazonaws.com",
        "iam:PassedToService": "bedrock.amazonaws.com",
    }
    every = [
        *actions(),
        "s3:ListBucket",
        "iam:PassRole",
        "lambda:InvokeFunction",
        "bedrock:InvokeModel",
    ]
    allowed = [
        a
        for a in every
        if evaluate_policies(ROLE, AccessRequest(a, resource, context)) != "implicitDeny"
    ]
    assert allowed == []


PARTS = st.sampled_from(["cloudft", "data", "jobs", "models", "neighbor", "", "..", "x", "DATA"])


@given(st.lists(PARTS, max_size=4), st.sampled_from(["s3:GetObject", "s3:PutObject"]))
def test_a_key_is_the_roles_by_its_first_two_parts_alone(parts: list[str], action: str) -> None:
    key = "/".join(parts)
    for bucket, place in (
        ("team-databucket", "cloudft/data/"),
        ("team-outputbucket", "cloudft/jobs/"),
    ):
        allowed = key.startswith(place) and (action == "s3:GetObject" or place.endswith("jobs/"))
        decision = evaluate_policies(
            ROLE, AccessRequest(action, f"arn:aws:s3:::{bucket}/{key}", {})
        )
        assert (decision == "allowed") == allowed, key


def test_the_role_may_not_use_the_key_but_through_s3_nor_list_without_a_prefix() -> None:
    for context in ({}, {"kms:ViaService": f"sns.{REGION}.amazonaws.com"}):
        assert evaluate_policies(ROLE, AccessRequest("kms:Decrypt", KEY, context)) == "implicitDeny"
    bucket = "arn:aws:s3:::team-databucket"
    for prefix in ({}, {"s3:prefix": ""}, {"s3:prefix": "neighbor/"}):
        assert (
            evaluate_policies(ROLE, AccessRequest("s3:ListBucket", bucket, prefix))
            == "implicitDeny"
        )


@pytest.mark.parametrize(
    ("role", "service", "job_arn"),
    [
        ("BedrockRole", "bedrock", f"arn:aws:bedrock:{REGION}:%s:model-customization-job/x/y"),
        ("ImportRole", "bedrock", f"arn:aws:bedrock:{REGION}:%s:model-import-job/x"),
        ("SageMakerRole", "sagemaker", f"arn:aws:sagemaker:{REGION}:%s:training-job/x"),
    ],
)
def test_who_may_take_a_role_on(role: str, service: str, job_arn: str) -> None:
    policy = resolve_resources({})[role]["Properties"]["AssumeRolePolicyDocument"]
    name = f"{service}.amazonaws.com"

    def may(source: str, account: str, service_name: str = name) -> bool:
        return allows_assume_role(
            policy, service_name, {"aws:SourceAccount": account, "aws:SourceArn": source}
        )

    ours, theirs = job_arn % ACCOUNT, job_arn % "999999999999"
    assert may(ours, ACCOUNT)
    assert not may(theirs, "999999999999") and not may(theirs, ACCOUNT)
    assert not may(ours.replace(REGION, "eu-west-1"), ACCOUNT)
    assert not may(ours, ACCOUNT, "lambda.amazonaws.com")
    assert not allows_assume_role(policy, name, {})
    if role == "BedrockRole":
        assert may(f"arn:aws:bedrock:{REGION}:{ACCOUNT}:model-invocation-job/x", ACCOUNT)
    if service == "bedrock":
        assert not may(f"arn:aws:bedrock:{REGION}:{ACCOUNT}:agent/x", ACCOUNT)


@pytest.mark.parametrize("who", ["people", "pipelines"])
def test_people_and_pipelines_may_submit(job: LoadedJob, who: str) -> None:
    found = (
        people_statements(ALL_OPTIONS)
        if who == "people"
        else policy_statements(ALL_OPTIONS, "CiPolicy")
    )
    refused = [
        n
        for n in required_permissions.caller_permissions(job)
        if evaluate_policies(found, requested(n)) != "allowed"
    ]
    assert refused == []


FORBIDDEN = (
    ("bedrock:DeleteCustomModel", "custom-model/x"),
    ("bedrock:DeleteProvisionedModelThroughput", "provisioned-model/x"),
    ("bedrock:CreateProvisionedModelThroughput", "provisioned-model/x"),
    ("bedrock:UpdateProvisionedModelThroughput", "provisioned-model/x"),
    ("bedrock:StopModelCustomizationJob", "model-customization-job/x"),
)


MARKED = {"aws:ResourceTag/cloudft:job": "router-01234567", "aws:ResourceTag/cloudft:token": "0"}
"""The context of what cloudft has made."""


def test_a_pipeline_removes_nothing_and_serves_nothing() -> None:
    ci = policy_statements(ALL_OPTIONS, "CiPolicy")
    for action, what in FORBIDDEN:
        request = AccessRequest(action, f"arn:aws:bedrock:{REGION}:{ACCOUNT}:{what}", MARKED)
        assert evaluate_policies(ci, request) == "implicitDeny"
        assert evaluate_policies(people_statements(ALL_OPTIONS), request) == "allowed"


@pytest.mark.parametrize(
    ("action", "what"),
    [
        ("bedrock:DeleteCustomModel", "custom-model/x"),
        ("bedrock:DeleteCustomModelDeployment", "custom-model-deployment/x"),
        ("bedrock:DeleteImportedModel", "imported-model/x"),
        ("bedrock:DeleteProvisionedModelThroughput", "provisioned-model/x"),
        ("bedrock:UpdateCustomModelDeployment", "custom-model-deployment/x"),
        ("bedrock:UpdateProvisionedModelThroughput", "provisioned-model/x"),
        ("bedrock:StopModelCustomizationJob", "model-customization-job/x"),
        ("bedrock:StopEvaluationJob", "evaluation-job/x"),
        ("bedrock:StopModelInvocationJob", "model-invocation-job/x"),
        ("bedrock:InvokeModel", "custom-model-deployment/x"),
        ("bedrock:InvokeModel", "imported-model/x"),
        ("bedrock:InvokeModelWithResponseStream", "provisioned-model/x"),
        ("sagemaker:StopTrainingJob", "training-job/x"),
        ("sagemaker:UpdateTrainingJob", "training-job/x"),
    ],
)
def test_people_stop_remove_and_ask_only_what_cloudft_has_marked(action: str, what: str) -> None:
    arn = f"arn:aws:{action.partition(':')[0]}:{REGION}:{ACCOUNT}:{what}"
    theirs = {"aws:ResourceTag/team": "neighbor"}
    assert (
        evaluate_policies(people_statements(ALL_OPTIONS), AccessRequest(action, arn, MARKED))
        == "allowed"
    )
    assert (
        evaluate_policies(people_statements(ALL_OPTIONS), AccessRequest(action, arn, theirs))
        == "implicitDeny"
    )
    elsewhere = arn.replace(REGION, "eu-west-1")
    assert (
        evaluate_policies(people_statements(ALL_OPTIONS), AccessRequest(action, elsewhere, MARKED))
        == "implicitDeny"
    )


def test_a_training_job_is_tagged_as_it_is_made_and_no_other_resource_is() -> None:
    for what, how, decision in (
        ("training-job/x", {"sagemaker:TaggingAction": "CreateTrainingJob"}, "allowed"),
        ("training-job/x", {}, "implicitDeny"),
        ("endpoint/x", {"sagemaker:TaggingAction": "CreateTrainingJob"}, "implicitDeny"),
    ):
        arn = f"arn:aws:sagemaker:{REGION}:{ACCOUNT}:{what}"
        request = AccessRequest("sagemaker:AddTags", arn, how)
        assert evaluate_policies(people_statements(ALL_OPTIONS), request) == decision, what


def test_people_ask_the_base_models_of_the_catalogue_and_no_other() -> None:
    def may(model: str, region: str = REGION) -> bool:
        arn = f"arn:aws:bedrock:{region}::foundation-model/{model}"
        actions = ("bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream")
        actions = (*actions, "bedrock:CreateModelInvocationJob")
        said = {
            evaluate_policies(people_statements(ALL_OPTIONS), AccessRequest(action, arn, {}))
            for action in actions
        }
        assert len(said) == 1
        return said == {"allowed"}

    tunable = [m for m in catalogue.load_models() if m.bedrock_id and m.lifecycle.state == "active"]
    assert len(tunable) > 5
    for model in tunable:
        assert may(str(model.bedrock_id)) and may(str(model.bedrock_id), "eu-west-1"), model.alias
    for other in ("anthropic.claude-opus-4-v1:0", "amazon.nova-canvas-v1:0", "x", "*"):
        assert not may(other), other


@pytest.mark.parametrize("who", ["people", "pipelines"])
def test_nobody_gets_more_than_the_stacks_own(who: str) -> None:
    found = (
        people_statements(ALL_OPTIONS)
        if who == "people"
        else policy_statements(ALL_OPTIONS, "CiPolicy")
    )
    passed = {"iam:PassedToService": "bedrock.amazonaws.com"}
    for resource in OUTSIDE:
        for action in (
            "s3:GetObject",
            "s3:PutObject",
            "s3:DeleteObject",
            "kms:Decrypt",
            "iam:PassRole",
        ):
            assert (
                evaluate_policies(found, AccessRequest(action, resource, passed)) == "implicitDeny"
            ), action
    role = resolve_outputs({})["BedrockRoleArn"]
    elsewhere = {"iam:PassedToService": "ec2.amazonaws.com"}
    assert (
        evaluate_policies(found, AccessRequest("iam:PassRole", role, elsewhere)) == "implicitDeny"
    )
    for action in (
        "iam:CreateUser",
        "iam:PutRolePolicy",
        "s3:DeleteBucket",
        "kms:ScheduleKeyDeletion",
    ):
        for resource in (role, KEY, "arn:aws:s3:::team-databucket"):
            assert evaluate_policies(found, AccessRequest(action, resource, {})) == "implicitDeny"


def test_an_import_reads_weights_and_a_training_job_writes_only_what_jobs_leave() -> None:
    weights, training = (
        policy_statements(ALL_OPTIONS, name) for name in ("ImportRole", "SageMakerRole")
    )
    data, output = "arn:aws:s3:::team-databucket/cloudft", "arn:aws:s3:::team-outputbucket/cloudft"
    for found, action, resource, decision in (
        (weights, "s3:GetObject", f"{data}/imports/x", "allowed"),
        (weights, "s3:GetObject", f"{data}/data/x", "implicitDeny"),
        (weights, "s3:PutObject", f"{data}/imports/x", "implicitDeny"),
        (training, "s3:GetObject", f"{output}/code/x", "allowed"),
        (training, "s3:PutObject", f"{output}/jobs/x/output/model.tar.gz", "allowed"),
        (training, "s3:PutObject", f"{output}/models/x", "implicitDeny"),
        (training, "s3:PutObject", f"{data}/data/x", "implicitDeny"),
    ):
        assert evaluate_policies(found, AccessRequest(action, resource, {})) == decision, (
            action,
            resource,
        )
    for found in (weights, training):
        for resource in OUTSIDE:
            for action in ("s3:GetObject", "s3:PutObject", "kms:Decrypt", "iam:PassRole"):
                assert (
                    evaluate_policies(found, AccessRequest(action, resource, {})) == "implicitDeny"
                )


@pytest.mark.parametrize("role", ["ImportRole", "SageMakerRole"])
def test_the_other_roles_may_do_all_that_is_checked_of_them(
    tmp_path: Path, job: LoadedJob, role: str
) -> None:
    wanted = list(import_needs(job))
    if role == "SageMakerRole":
        reported = resolve_outputs(ALL_OPTIONS)
        section = {
            "region": REGION,
            "role_arn": reported["SageMakerRoleArn"],
            "s3_uri": f"s3://{reported['OutputBucketName']}/{reported['Prefix']}",
            "instance_type": "ml.m5.xlarge",
            "kms_key_id": reported["KeyArn"],
            "vpc": job.spec.bedrock.vpc.model_dump() if job.spec.bedrock.vpc else None,
        }
        path = write_job_file(tmp_path, Path("smollm2-135m"), sagemaker=section)
        wanted = list(sagemaker_needs(load_job(path), REGION))
        assert {"kms:CreateGrant", "ec2:CreateNetworkInterface"} <= {n.action for n in wanted}
    found = policy_statements(ALL_OPTIONS, role)
    assert [n for n in wanted if evaluate_policies(found, requested(n)) != "allowed"] == []


def test_people_may_remove_what_gc_finds() -> None:
    found = people_statements(ALL_OPTIONS)
    data, output = "arn:aws:s3:::team-databucket/cloudft", "arn:aws:s3:::team-outputbucket/cloudft"
    for place in (f"{data}/data", f"{data}/imports", f"{output}/data", f"{output}/models"):
        assert (
            evaluate_policies(found, AccessRequest("s3:DeleteObject", f"{place}/x", {}))
            == "allowed"
        ), place
    assert (
        evaluate_policies(found, AccessRequest("s3:DeleteObject", f"{output}/jobs/x", {}))
        == "implicitDeny"
    )


def test_a_workflow_of_another_repository_or_branch_gets_no_role() -> None:
    reported = resolve_resources(ALL_OPTIONS)["CiRole"]["Properties"]["AssumeRolePolicyDocument"][
        "Statement"
    ]
    [statement] = reported
    assert statement["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": "repo:example/router:environment:cloudft",
        }
    }
    assert "CiRole" not in resolve_resources({})


def test_each_statement_of_a_policy_has_a_name_of_its_own() -> None:
    for group in (
        ROLE,
        people_statements(ALL_OPTIONS),
        policy_statements(ALL_OPTIONS, "ImportRole"),
    ):
        sids = [s["Sid"] for s in group]
        assert len(set(sids)) == len(sids)


def test_the_endpoint_of_s3_lets_through_what_the_roles_may_do() -> None:
    [allowed] = resolve_resources(ALL_OPTIONS)["S3Endpoint"]["Properties"]["PolicyDocument"][
        "Statement"
    ]
    for role in ("BedrockRole", "ImportRole", "SageMakerRole"):
        found = list_permissions(policy_statements(ALL_OPTIONS, role))
        assert {action for _, action in found if action.startswith("s3:")} <= {*allowed["Action"]}
