"""IAM: AWS's managed policies, and the policy simulator without `--authorization`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import SAGEMAKER_TRUST, Endpoint

SAGEMAKER_POLICY = "arn:aws:iam::aws:policy/AmazonSageMakerFullAccess"
READ = {"Effect": "Allow", "Action": "s3:GetObject", "Resource": "arn:aws:s3:::box/*"}


def policy(*statements: dict[str, Any]) -> str:
    return json.dumps({"Version": "2012-10-17", "Statement": list(statements)})


def decisions(pages: Any) -> dict[str, str]:
    return {
        result["EvalActionName"]: result["EvalDecision"]
        for page in pages
        for result in page["EvaluationResults"]
    }


def test_a_role_with_a_managed_policy_is_simulated(fast_account: Endpoint) -> None:
    """As sagemaker-core 2.27 checks the role of a ModelTrainer (helper/iam_role_resolver.py)."""
    iam = fast_account.client("iam")
    trust = json.dumps(SAGEMAKER_TRUST)
    role = iam.create_role(RoleName="managed", AssumeRolePolicyDocument=trust)["Role"]["Arn"]
    actions = ["sagemaker:CreateTrainingJob", "logs:PutLogEvents", "s3:GetObject"]
    simulate = iam.get_paginator("simulate_principal_policy")

    def check() -> dict[str, str]:
        pages = simulate.paginate(PolicySourceArn=role, ActionNames=actions, MaxItems=2)
        return decisions(pages)

    assert set(check().values()) == {"implicitDeny"} and check().keys() == set(actions)
    iam.attach_role_policy(RoleName="managed", PolicyArn=SAGEMAKER_POLICY)
    assert [check()[action] for action in actions] == ["allowed", "allowed", "implicitDeny"]
    document = iam.get_policy(PolicyArn=SAGEMAKER_POLICY)["Policy"]
    assert document["PolicyName"] == "AmazonSageMakerFullAccess"
    assert len(iam.list_policies(Scope="Local")["Policies"]) < 100


def test_policies_of_the_request_are_simulated(fast_account: Endpoint) -> None:
    iam = fast_account.client("iam")
    deny = {
        "Effect": "Deny",
        "Action": "s3:*",
        "Resource": "*",
        "Condition": {"Bool": {"aws:SecureTransport": "false"}},
    }
    request = {
        "PolicyInputList": [policy(READ), policy(deny)],
        "ActionNames": ["s3:GetObject"],
        "ResourceArns": ["arn:aws:s3:::box/a", "arn:aws:s3:::other/a"],
    }
    results = iam.simulate_custom_policy(**request)["EvaluationResults"]
    assert [result["EvalDecision"] for result in results] == ["allowed", "implicitDeny"]
    plain = {
        "ContextKeyName": "aws:SecureTransport",
        "ContextKeyValues": ["false"],
        "ContextKeyType": "boolean",
    }
    [result, _] = iam.simulate_custom_policy(**request, ContextEntries=[plain])["EvaluationResults"]
    assert result["EvalDecision"] == "explicitDeny"
    boundary = [policy({**READ, "Action": "s3:PutObject"})]
    [result, _] = iam.simulate_custom_policy(
        **request, PermissionsBoundaryPolicyInputList=boundary
    )["EvaluationResults"]
    assert result["EvalDecision"] == "implicitDeny"
    assert result["PermissionsBoundaryDecisionDetail"] == {"AllowedByPermissionsBoundary": False}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"PolicyInputList": ["{"]}, "InvalidInput"),
        ({"PolicyInputList": ["[1]"]}, "InvalidInput"),
        ({"ResourcePolicy": policy(READ)}, "ValidationError"),
        ({"PolicySourceArn": "arn:aws:iam::000000000000:role/none"}, "NoSuchEntity"),
        ({"PolicySourceArn": "arn:aws:iam::000000000000:policy/none"}, "InvalidInput"),
        ({"Marker": "x"}, "ValidationError"),
    ],
)
def test_a_simulation_that_is_not_valid_is_refused(
    fast_account: Endpoint, changes: dict[str, Any], code: str
) -> None:
    request = {"PolicyInputList": [policy(READ)], "ActionNames": ["s3:GetObject"], **changes}
    which = "principal" if "PolicySourceArn" in changes else "custom"
    with pytest.raises(ClientError) as caught:
        getattr(fast_account.client("iam"), f"simulate_{which}_policy")(**request)
    assert caught.value.response["Error"]["Code"] == code
