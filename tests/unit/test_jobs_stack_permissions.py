"""Every statement of infra/jobs.yaml: what it is for is allowed, and all else is not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from base_stack import ACCOUNT, PSEUDO, REGION, permissions, without
from moto.events.models import EventPattern

from cloudft.endpoint.policies import Request, decide, trusts
from cloudft.infrastructure import template as templates
from cloudft.infrastructure.evaluate import Made, Scope

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
TEMPLATE = templates.parse(templates.text_of("jobs"))


def resources(**given: str) -> dict[str, Any]:
    """Every resource, its properties worked out; a machine's ARN is its logical name."""
    there = {
        name: Made(name, {"Arn": name, "Name": f"cloudft-{STACK}-machine"})
        for name in TEMPLATE["Resources"]
    }
    scope = Scope(TEMPLATE, {**GIVEN, **given}, PSEUDO, there, list)
    return {
        name: scope.resolve({**told, "Properties": told["Properties"]})
        for name, told in scope.resources().items()
    }


EVERYTHING = resources()


def statements(name: str, found: Mapping[str, Any] = EVERYTHING) -> list[dict[str, Any]]:
    """Those of a role or of a managed policy, each with a name."""
    properties = found[name]["Properties"]
    policies = properties.get("Policies") or [properties]
    told = [s for policy in policies for s in policy["PolicyDocument"]["Statement"]]
    return [{"Sid": str(number), **statement} for number, statement in enumerate(told)]


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
    Request(f"logs:{name}", "*", {})
    for name in (
        *("CreateLogDelivery", "DeleteLogDelivery", "DescribeLogGroups", "GetLogDelivery"),
        *("DescribeResourcePolicies", "ListLogDeliveries", "PutResourcePolicy"),
        "UpdateLogDelivery",
    )
]
"""What Step Functions asks of the role of a machine that logs."""
NEEDS = {
    "MachineRole": [
        *(Request("s3:GetObject", plan, {}) for plan in PLANS),
        Request("s3:GetObject", "arn:aws:s3:::output/team/jobs/n/queued.json", {}),
        Request("s3:PutObject", "arn:aws:s3:::output/team/jobs/n/outcome.json", {}),
        *(
            Request("bedrock:CreateModelCustomizationJob", made, {})
            for made in (FOUNDATION, MODEL, JOB)
        ),
        *(Request("bedrock:TagResource", made, {}) for made in (JOB, MODEL, SERVING)),
        Request("bedrock:GetModelCustomizationJob", JOB, {}),
        Request("bedrock:StopModelCustomizationJob", JOB, MARKED),
        Request("bedrock:ListModelCustomizationJobs", "*", {}),
        *(Request("bedrock:CreateCustomModelDeployment", made, {}) for made in (MODEL, SERVING)),
        Request("bedrock:GetCustomModelDeployment", SERVING, {}),
        Request("bedrock:DeleteCustomModelDeployment", SERVING, MARKED),
        Request("iam:PassRole", ROLE, {"iam:PassedToService": "bedrock.amazonaws.com"}),
        *(
            Request(f"kms:{action}", KEY, via(service))
            for action in ("Decrypt", "GenerateDataKey")
            for service in ("s3", "bedrock", "sns")
        ),
        Request("kms:CreateGrant", KEY, via("bedrock")),
        Request("kms:DescribeKey", KEY, {}),
        *(Request(f"events:{act}", RULE, {}) for act in ("DescribeRule", "PutRule", "PutTargets")),
        Request("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "cloudft"}),
        Request("sns:Publish", TOPIC, {}),
        *LOGS,
    ],
    "StarterRole": [
        *(Request("s3:GetObject", plan, {}) for plan in PLANS),
        Request("states:StartExecution", "JobMachine", {}),
        *(
            Request(f"kms:{action}", KEY, via(service))
            for action in ("Decrypt", "GenerateDataKey")
            for service in ("s3", "sns")
        ),
        Request("sns:Publish", TOPIC, {}),
        *LOGS,
    ],
    "EventsRole": [Request("states:StartExecution", "PlanStarter", {})],
    "MachinePolicy": [
        Request("states:StartExecution", "JobMachine", {}),
        *(
            Request(f"states:{act}", f"arn:aws:states:{HERE}:execution:cloudft-1-machine:x", {})
            for act in ("DescribeExecution", "StopExecution")
        ),
        *(Request(f"s3:{act}", PLANS[1], {}) for act in ("GetObject", "PutObject")),
        Request("cloudformation:DescribeStacks", PSEUDO["AWS::StackId"], {}),
    ],
}


@pytest.mark.parametrize("name", NEEDS)
def test_each_may_do_what_it_needs_and_needs_what_it_may(name: str) -> None:
    found = statements(name)
    assert [need for need in NEEDS[name] if decide(found, need) != "allowed"] == []
    for sid, action in permissions(found):
        left = without(found, sid, action)
        refused = {need.action for need in NEEDS[name] if decide(left, need) != "allowed"}
        assert refused == {action}, (sid, action)


OTHERS = (
    Request("s3:GetObject", "arn:aws:s3:::data/team/data/0/train.jsonl", {}),
    Request("s3:GetObject", "arn:aws:s3:::data/neighbour/plans/x.json", {}),
    Request("s3:PutObject", "arn:aws:s3:::data/team/plans/x.json", {}),
    Request("s3:PutObject", "arn:aws:s3:::output/team/jobs/n/plan.json", {}),
    Request("s3:DeleteObject", "arn:aws:s3:::output/team/jobs/n/outcome.json", {}),
    Request("bedrock:CreateProvisionedModelThroughput", MODEL, {}),
    Request("bedrock:DeleteCustomModel", MODEL, MARKED),
    Request("bedrock:StopModelCustomizationJob", JOB, {}),
    Request("bedrock:DeleteCustomModelDeployment", SERVING, {"aws:ResourceTag/team": "x"}),
    Request("bedrock:InvokeModel", FOUNDATION, {}),
    Request("iam:PassRole", ROLE, {"iam:PassedToService": "lambda.amazonaws.com"}),
    Request(
        "iam:PassRole",
        f"arn:aws:iam::{ACCOUNT}:role/admin",
        {"iam:PassedToService": "bedrock.amazonaws.com"},
    ),
    Request("kms:Decrypt", f"arn:aws:kms:{HERE}:key/another", via("s3")),
    Request("kms:Decrypt", KEY, via("secretsmanager")),
    Request("cloudwatch:PutMetricData", "*", {"cloudwatch:namespace": "AWS/Bedrock"}),
    Request("events:PutRule", f"arn:aws:events:{HERE}:rule/mine", {}),
    Request("states:StartExecution", "arn:aws:states:another", {}),
    Request("sns:Publish", "another-topic", {}),
)


@pytest.mark.parametrize("name", NEEDS)
def test_none_may_do_anything_else(name: str) -> None:
    found = statements(name)
    assert [other for other in OTHERS if decide(found, other) != "implicitDeny"] == []


def test_without_deploying_no_deployment_may_be_made() -> None:
    found = statements("MachineRole", resources(Afterwards="nothing"))
    served = [need for need in NEEDS["MachineRole"] if "CustomModelDeployment" in need.action]
    assert {decide(found, need) for need in served} == {"implicitDeny"}


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
    assert trusts(trust, service, ours)
    assert not trusts(trust, service, {**ours, "aws:SourceAccount": "111111111111"})
    assert not trusts(trust, "lambda.amazonaws.com", ours)
    if machine is not None:
        assert not trusts(trust, service, {**ours, "aws:SourceArn": f"{source}-of-another"})


def event(bucket: str, key: str) -> dict[str, Any]:
    """What S3 tells EventBridge of a new object (S3 user guide, "EventBridge event structure")."""
    detail = {"bucket": {"name": bucket}, "object": {"key": key, "size": 1}, "reason": "PutObject"}
    return {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}


@pytest.mark.parametrize(
    ("bucket", "key", "started"),
    [
        ("data", "team/plans/x.json", True),
        ("data", "team/data/0/train.jsonl", False),
        ("data", "neighbour/plans/x.json", False),
        ("output", "team/plans/x.json", False),
    ],
)
def test_a_plan_that_is_dropped_is_started_and_nothing_else(
    bucket: str, key: str, started: bool
) -> None:
    pattern = EventPattern.load(json.dumps(EVERYTHING["PlanDropped"]["Properties"]["EventPattern"]))
    assert pattern.matches_event(event(bucket, key)) is started


def test_the_schedule_tells_of_a_plan_as_a_bucket_does() -> None:
    told = json.loads(EVERYTHING["PlanScheduled"]["Properties"]["Target"]["Input"])
    place = {"bucket": {"name": "data"}, "object": {"key": "team/scheduled/plan.json"}}
    assert told == {"detail": place}
    assert "PlanScheduled" not in resources(ScheduleExpression="")
