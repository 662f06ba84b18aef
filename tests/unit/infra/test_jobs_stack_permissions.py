"""Every statement of infra/jobs.yaml: what it is for is allowed, and all else is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from base_stack import ACCOUNT, PSEUDO, REGION, list_permissions, without_action
from moto.events.models import EventPattern

from cloudft.endpoint.iam.policies import AccessRequest, allows_assume_role, evaluate_policies
from cloudft.infra import template as templates
from cloudft.infra.intrinsics import CreatedResource, TemplateScope

HERE = f"{REGION}:{ACCOUNT}"
KEY, ROLE, TOPIC = f"arn:aws:kms:{HERE}:key/k", f"arn:aws:iam::{ACCOUNT}:role/job", "topic-arn"
GIVEN = {
    "DataBucketName": "data",
    "OutputBucketName": "output",
    "Prefix": "team",
    "KeyArn": KEY,
    "BedrockRoleArn": ROLE,
    "JobTopicArn": TOPIC,
    "Afterwards": "deploy",
    "ScheduleExpression": "rate(1 day)",
}
STACK = "1"
"""Of the stack's ARN, the part that no other stack has."""
MARKED = {"aws:ResourceTag/cloudft:job": "router-01234567"}
TEMPLATE = templates.parse_template(templates.load_template_text("jobs"))


def resources(**given: str) -> dict[str, Any]:
    """Every resource, its properties worked out; a machine's ARN is its logical name."""
    there = {
        name: CreatedResource(name, {"Arn": name, "Name": f"cloudft-{STACK}-machine"})
        for name in TEMPLATE["Resources"]
    }
    scope = TemplateScope(TEMPLATE, {**GIVEN, **given}, PSEUDO, there, list)
    return {
        name: scope.resolve({**reported, "Properties": reported["Properties"]})
        for name, reported in scope.active_resources().items()
    }


EVERYTHING = resources()


def statements(name: str, found: Mapping[str, Any] = EVERYTHING) -> list[dict[str, Any]]:
    """Those of a role or of a managed policy, each with a name."""
    properties = found[name]["Properties"]
    policies = properties.get("Policies") or [properties]
    reported = [s for policy in policies for s in policy["PolicyDocument"]["Statement"]]
    return [{"Sid": str(number), **statement} for number, statement in enumerate(reported)]


def of_bedrock(kind: str) -> str:
    return f"arn:aws:bedrock:{HERE}:{kind}/x"


def via(service: str) -> dict[str, str]:
    return {"kms:ViaService": f"{service}.{REGION}.amazonaws.com"}


JOB, MODEL, SERVING = map(
    of_bedrock, ("model-customization-job", "custom-model", "custom-model-deployment")
)
FOUNDATION = f"arn:aws:bedrock:{REGION}::foundation-model/x"
RULE = f"arn:aws:events:{HERE}:rule/StepFunctionsGetEventsForBedrockModelCustomizationJobsRule"
PLANS = ["arn:aws:s3:::data/team/plans/x.json", "arn:aws:s3:::data/team/scheduled/plan.json"]
LOGS = [
    AccessRequest(f"logs:{name}", "*", {})
    for name in (
        *("CreateLogDelivery", "DeleteLogDelivery", "DescribeLogGroups", "GetLogDelivery"),
        *("DescribeResourcePolicies", "ListLogDeliveries", "PutResourcePolicy"),
        "UpdateLogDelivery",
    )
]
"""What Step Functions requires of the role of a machine that logs."""
NEEDS = {
    "MachineRole": [
        *(AccessRequest("s3:GetObject", plan, {}) for plan in PLANS),
        AccessRequest("s3:GetObject", "arn:aws:s3:::output/team/jobs/n/queued.json", {}),
        AccessRequest("s3:PutObject", "arn:aws:s3:::output/team/jobs/n/outcome.json", {}),
        *(
            AccessRequest("bedrock:CreateModelCustomizationJob", made, {})
            for made in (FOUNDATION, MODEL, JOB)
        ),
        *(AccessRequest("bedrock:TagResource", made, {}) for made in (JOB, MODEL, SERVING)),
        AccessRequest("bedrock:GetModelCustomizationJob", JOB, {}),
        AccessRequest("bedrock:StopModelCustomizationJob", JOB, MARKED),
        AccessRequest("bedrock:ListModelCustomizationJobs", "*", {}),
        *(
            AccessRequest("bedrock:CreateCustomModelDeployment", made, {})
            for made in (MODEL, SERVING)
        ),
        AccessRequest("bedrock:GetCustomModelDeployment", SERVING, {}),
        AccessRequest("bedrock:DeleteCustomModelDeployment", SERVING, MARKED),
        AccessRequest("iam:PassRole", ROLE, {"iam:PassedToService": "bedrock.amazonaws.com"}),
        *(
            AccessRequest(f"kms:{action}", KEY, via(service))
            for action in ("Decrypt", "GenerateDataKey")
            for service in ("s3", "bedrock", "sns")
        ),
        AccessRequest("kms:CreateGrant", KEY, via("bedrock")),
        AccessRequest("kms:DescribeKey", KEY, {}),
        *(
            AccessRequest(f"events:{act}", RULE, {})
            for act in ("DescribeRule", "PutRule", "PutTargets")
        ),
        AccessRequest("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "cloudft"}),
        AccessRequest("sns:Publish", TOPIC, {}),
        *LOGS,
    ],
    "StarterRole": [
        *(AccessRequest("s3:GetObject", plan, {}) for plan in PLANS),
        AccessRequest("states:StartExecution", "JobMachine", {}),
        *(
            AccessRequest(f"kms:{action}", KEY, via(service))
            for action in ("Decrypt", "GenerateDataKey")
            for service in ("s3", "sns")
        ),
        AccessRequest("sns:Publish", TOPIC, {}),
        *LOGS,
    ],
    "EventsRole": [AccessRequest("states:StartExecution", "PlanStarter", {})],
    "MachinePolicy": [
        AccessRequest("states:StartExecution", "JobMachine", {}),
        *(
            AccessRequest(
                f"states:{act}", f"arn:aws:states:{HERE}:execution:cloudft-1-machine:x", {}
            )
            for act in ("DescribeExecution", "StopExecution")
        ),
        *(AccessRequest(f"s3:{act}", PLANS[1], {}) for act in ("GetObject", "PutObject")),
        AccessRequest("cloudformation:DescribeStacks", PSEUDO["AWS::StackId"], {}),
    ],
}


@pytest.mark.parametrize("name", NEEDS)
def test_each_may_do_what_it_needs_and_needs_what_it_may(name: str) -> None:
    found = statements(name)
    assert [need for need in NEEDS[name] if evaluate_policies(found, need) != "allowed"] == []
    for sid, action in list_permissions(found):
        left = without_action(found, sid, action)
        refused = {
            need.action for need in NEEDS[name] if evaluate_policies(left, need) != "allowed"
        }
        assert refused == {action}, (sid, action)


OTHERS = (
    AccessRequest("s3:GetObject", "arn:aws:s3:::data/team/data/0/train.jsonl", {}),
    AccessRequest("s3:GetObject", "arn:aws:s3:::data/neighbor/plans/x.json", {}),
    AccessRequest("s3:PutObject", "arn:aws:s3:::data/team/plans/x.json", {}),
    AccessRequest("s3:PutObject", "arn:aws:s3:::output/team/jobs/n/plan.json", {}),
    AccessRequest("s3:DeleteObject", "arn:aws:s3:::output/team/jobs/n/outcome.json", {}),
    AccessRequest("bedrock:CreateProvisionedModelThroughput", MODEL, {}),
    AccessRequest("bedrock:DeleteCustomModel", MODEL, MARKED),
    AccessRequest("bedrock:StopModelCustomizationJob", JOB, {}),
    AccessRequest("bedrock:DeleteCustomModelDeployment", SERVING, {"aws:ResourceTag/team": "x"}),
    AccessRequest("bedrock:InvokeModel", FOUNDATION, {}),
    AccessRequest("iam:PassRole", ROLE, {"iam:PassedToService": "lambda.amazonaws.com"}),
    AccessRequest(
        "iam:PassRole",
        f"arn:aws:iam::{ACCOUNT}:role/admin",
        {"iam:PassedToService": "bedrock.amazonaws.com"},
    ),
    AccessRequest("kms:Decrypt", f"arn:aws:kms:{HERE}:key/another", via("s3")),
    AccessRequest("kms:Decrypt", KEY, via("secretsmanager")),
    AccessRequest("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Bedrock"}),
    AccessRequest("events:PutRule", f"arn:aws:events:{HERE}:rule/mine", {}),
    AccessRequest("states:StartExecution", "arn:aws:states:another", {}),
    AccessRequest("sns:Publish", "another-topic", {}),
)


@pytest.mark.parametrize("name", NEEDS)
def test_none_may_do_anything_else(name: str) -> None:
    found = statements(name)
    assert [other for other in OTHERS if evaluate_policies(found, other) != "implicitDeny"] == []


def test_without_deploying_no_deployment_may_be_made() -> None:
    found = statements("MachineRole", resources(Afterwards="nothing"))
    served = [need for need in NEEDS["MachineRole"] if "CustomModelDeployment" in need.action]
    assert {evaluate_policies(found, need) for need in served} == {"implicitDeny"}


@pytest.mark.parametrize(
    ("role", "service", "machine"),
    [
        ("MachineRole", "states.amazonaws.com", "stateMachine:cloudft-1-machine"),
        ("StarterRole", "states.amazonaws.com", "stateMachine:cloudft-1-starter"),
        ("EventsRole", "events.amazonaws.com", None),
        ("EventsRole", "scheduler.amazonaws.com", None),
    ],
)
def test_a_role_trusts_its_own_machine_in_its_own_account(
    role: str, service: str, machine: str | None
) -> None:
    trust = EVERYTHING[role]["Properties"]["AssumeRolePolicyDocument"]
    source = f"arn:aws:states:{HERE}:{machine}"
    ours = {"aws:SourceAccount": ACCOUNT, "aws:SourceArn": source}
    assert allows_assume_role(trust, service, ours)
    assert not allows_assume_role(trust, service, {**ours, "aws:SourceAccount": "111111111111"})
    assert not allows_assume_role(trust, "lambda.amazonaws.com", ours)
    if machine is not None:
        assert not allows_assume_role(
            trust, service, {**ours, "aws:SourceArn": f"{source}-of-another"}
        )


def event(bucket: str, key: str) -> dict[str, Any]:
    """Return the event of a new object in EventBridge.

    Source: S3 user guide, "EventBridge event structure".
    """
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}, "reason": "PutObject"}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


@pytest.mark.parametrize(
    ("bucket", "key", "started"),
    [
        ("data", "team/plans/x.json", True),
        ("data", "team/data/0/train.jsonl", False),
        ("data", "neighbor/plans/x.json", False),
        ("output", "team/plans/x.json", False),
    ],
)
def test_a_plan_that_is_dropped_is_started_and_nothing_else(
    bucket: str, key: str, started: bool
) -> None:
    pattern = EventPattern.load(json.dumps(EVERYTHING["PlanDropped"]["Properties"]["EventPattern"]))
    assert pattern.matches_event(event(bucket, key)) is started


def test_the_schedule_reports_a_plan_as_a_bucket_does() -> None:
    reported = json.loads(EVERYTHING["PlanScheduled"]["Properties"]["Target"]["Input"])
    place = {"bucket": {"name": "data"}, "object": {"key": "team/scheduled/plan.json"}}
    assert reported == {"detail": place}
    assert "PlanScheduled" not in resources(ScheduleExpression="")
