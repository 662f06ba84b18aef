"""CloudFormation beside what `cloudft infra` calls of it: as the AWS CLI calls it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from botocore.exceptions import ClientError
from endpoint import Endpoint
from processes import wait_until

TEMPLATE = """
Description: a bucket and a role
Parameters: {Text: {Type: String, Default: one, AllowedValues: [one, two, three]}}
Resources:
  Box: {Type: AWS::S3::Bucket}
  Reader:
    Type: AWS::IAM::Role
    Properties:
      Description: !Ref Text
      AssumeRolePolicyDocument:
        Version: "2012-10-17"
        Statement:
          {Effect: Allow, Principal: {Service: bedrock.amazonaws.com}, Action: "sts:AssumeRole"}
Outputs: {Name: {Value: !Ref Box}}
"""
BROKEN = TEMPLATE.replace("Outputs:", "  No: {Type: AWS::None::Such, DependsOn: Box}\nOutputs:")
IAM = ["CAPABILITY_IAM"]
FAST = {"Delay": 0.05, "MaxAttempts": 400}  # type: ignore[var-annotated]


@pytest.fixture(scope="module")
def client(fast_account: Endpoint) -> Any:
    return fast_account.client("cloudformation")


def wait_for(client: Any, what: str, **which: str) -> None:
    client.get_waiter(what).wait(**which, WaiterConfig=FAST)


def final_status(client: Any, arn: str) -> str:
    """Wait for the end of an operation and return the stack's status."""

    def poll() -> str | None:
        status = str(client.describe_stacks(StackName=arn)["Stacks"][0]["StackStatus"])
        return None if status.endswith("IN_PROGRESS") else status

    return str(wait_until(poll, "the operation has ended"))


def deploy_as_the_aws_cli(client: Any, name: str, change_set: str, **parameters: str) -> bool:
    """Deploy as awscli 1.46 does (customizations/cloudformation/deployer.py).

    Return False where it says "No changes to deploy".
    """
    try:
        [stack] = client.describe_stacks(StackName=name)["Stacks"]
    except ClientError as error:
        assert f"Stack with id {name} does not exist" in str(error)
        stack = {"StackStatus": "REVIEW_IN_PROGRESS"}
    given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
    kind = "CREATE"
    if stack["StackStatus"] != "REVIEW_IN_PROGRESS":
        kind = "UPDATE"
        known = client.get_template_summary(StackName=name)["Parameters"]
        previous = {item["ParameterKey"] for item in known} - parameters.keys()
        given += [{"ParameterKey": key, "UsePreviousValue": True} for key in previous]
    made = client.create_change_set(
        StackName=name,
        ChangeSetName=change_set,
        ChangeSetType=kind,
        TemplateBody=TEMPLATE,
        Parameters=given,
        Capabilities=IAM,
        Description="by a test",
        Tags=[],
    )
    described = client.describe_change_set(ChangeSetName=made["Id"], StackName=name)
    if described["Status"] == "FAILED":
        assert "The submitted information didn't contain changes." in described["StatusReason"]
        return False
    client.execute_change_set(ChangeSetName=made["Id"], StackName=name, DisableRollback=False)
    wait_for(client, f"stack_{kind.lower()}_complete", StackName=name)
    return True


def test_a_stack_is_deployed_again_and_again(client: Any) -> None:
    assert deploy_as_the_aws_cli(client, "again", "a")
    assert not deploy_as_the_aws_cli(client, "again", "b")
    assert deploy_as_the_aws_cli(client, "again", "c", Text="two")
    assert not deploy_as_the_aws_cli(client, "again", "d")  # the previous value stays
    [stack] = client.describe_stacks(StackName="again")["Stacks"]
    assert stack["Parameters"] == [{"ParameterKey": "Text", "ParameterValue": "two"}]
    client.delete_stack(StackName="again")
    wait_for(client, "stack_delete_complete", StackName=stack["StackId"])
    assert deploy_as_the_aws_cli(client, "again", "a")


def test_a_stack_is_created_updated_and_described_without_change_sets(
    fast_account: Endpoint, client: Any
) -> None:
    name = {"StackName": "direct"}
    create = {"TemplateBody": TEMPLATE, "Capabilities": IAM, "ClientRequestToken": "first"}
    arn = client.create_stack(**name, **create)["StackId"]
    assert client.create_stack(**name, **create)["StackId"] == arn  # an answer that was lost
    wait_for(client, "stack_create_complete", **name)
    with pytest.raises(client.exceptions.AlreadyExistsException):
        client.create_stack(**name, TemplateBody=TEMPLATE, Capabilities=IAM)
    same = {"UsePreviousTemplate": True, "Capabilities": IAM}
    with pytest.raises(ClientError, match=r"\(ValidationError\).*No updates are to be performed"):
        client.update_stack(**name, **same)
    given = [{"ParameterKey": "Text", "ParameterValue": "two"}]
    assert client.update_stack(**name, **same, Parameters=given)["StackId"] == arn
    wait_for(client, "stack_update_complete", **name)
    [role] = client.describe_stack_resources(**name, LogicalResourceId="Reader")["StackResources"]
    physical = role["PhysicalResourceId"]
    described = fast_account.client("iam").get_role(RoleName=physical)["Role"]
    assert (role["StackId"], described["Description"]) == (arn, "two")
    both = client.describe_stack_resources(PhysicalResourceId=physical)["StackResources"]
    assert {item["LogicalResourceId"] for item in both} == {"Box", "Reader"}
    detail = client.describe_stack_resource(**name, LogicalResourceId="Box")["StackResourceDetail"]
    assert (detail["ResourceStatus"], detail["StackName"]) == ("CREATE_COMPLETE", "direct")
    client.delete_stack(**name)
    wait_for(client, "stack_delete_complete", StackName=arn)


def test_an_output_that_has_no_value_fails_the_stack(client: Any) -> None:
    text = "Resources: {Box: {Type: AWS::S3::Bucket}}\nOutputs: {A: {Value: !GetAtt Box.None}}"
    arn = client.create_stack(StackName="no-value", TemplateBody=text)["StackId"]
    assert final_status(client, arn) == "ROLLBACK_COMPLETE"
    events = client.describe_stack_events(StackName=arn)["StackEvents"]
    [reason] = [e for e in events if e["ResourceStatus"] == "ROLLBACK_IN_PROGRESS"]
    assert "None" in reason["ResourceStatusReason"]


def test_a_template_is_described_and_read_from_a_bucket(
    fast_account: Endpoint, client: Any
) -> None:
    s3, bucket = fast_account.client("s3"), "templates"
    s3.create_bucket(Bucket=bucket)
    large = TEMPLATE + "#" * 60_000  # more than a request may have
    s3.put_object(Bucket=bucket, Key="a b.yaml", Body=large)
    for url in (
        f"{fast_account.url}/{bucket}/a%20b.yaml",  # as the AWS CLI writes it
        f"https://s3.us-east-1.amazonaws.com/{bucket}/a%20b.yaml",
        f"https://{bucket}.s3.amazonaws.com/a%20b.yaml",
    ):
        summary = client.get_template_summary(TemplateURL=url)
        assert summary["ResourceTypes"] == ["AWS::IAM::Role", "AWS::S3::Bucket"]
    [parameter] = summary["Parameters"]
    assert parameter["ParameterConstraints"] == {"AllowedValues": ["one", "two", "three"]}
    assert parameter["DefaultValue"] == "one" and summary["Capabilities"] == IAM
    named = TEMPLATE.replace("Description: !Ref Text", "RoleName: mine")
    checked = client.validate_template(TemplateBody=named)
    assert checked["Capabilities"] == ["CAPABILITY_NAMED_IAM"]
    assert checked["Description"] == "a bucket and a role"
    with pytest.raises(ClientError, match="NAMED_IAM") as caught:
        client.create_stack(StackName="named", TemplateBody=named, Capabilities=IAM)
    assert caught.value.response["Error"]["Code"] == "InsufficientCapabilitiesException"
    with pytest.raises(ClientError, match=r"\(ValidationError\).*S3 error"):
        client.validate_template(TemplateURL=f"{fast_account.url}/{bucket}/none.yaml")


@pytest.mark.parametrize(
    ("option", "status"),
    [
        ({}, "ROLLBACK_COMPLETE"),
        ({"OnFailure": "DO_NOTHING"}, "CREATE_FAILED"),
        ({"OnFailure": "DELETE"}, "DELETE_COMPLETE"),
    ],
)
def test_a_failure_is_handled_as_the_request_says(
    client: Any, option: dict[str, str], status: str
) -> None:
    name = status.replace("_", "-")
    arn = client.create_stack(StackName=name, TemplateBody=BROKEN, Capabilities=IAM, **option)[
        "StackId"
    ]
    assert final_status(client, arn) == status
    if status == "CREATE_FAILED":  # the cause is mended, and what exists is not made again
        client.update_stack(StackName=arn, TemplateBody=TEMPLATE, Capabilities=IAM)
        wait_for(client, "stack_update_complete", StackName=arn)
        resources = client.list_stack_resources(StackName=arn)["StackResourceSummaries"]
        assert [item["ResourceStatus"] for item in resources] == ["CREATE_COMPLETE"] * 2


@pytest.mark.parametrize(
    ("operation", "request_", "reason"),
    [
        ("list_exports", {}, "ListExports is not offered by this endpoint"),
        ("list_stack_sets", {}, "ListStackSets is not offered"),
        ("signal_resource", {"UniqueId": "1", "Status": "SUCCESS"}, "not offered"),
        ("create_stack", {"NotificationARNs": ["arn:aws:sns:a:b:c"]}, "NotificationARNs is not"),
        ("create_stack", {"StackName": "a_b"}, "Member must satisfy regular expression"),
        ("create_stack", {"TemplateBody": "Resources: {A: 1}"}, r"\[/Resources/A\] must be"),
        ("create_stack", {"TemplateBody": "Resources: {}\nParameters: []"}, r"\[/Parameters\]"),
        ("create_stack", {"TemplateBody": "Resources: {A: {Type: 1}}"}, r"\[/Resources/A\]"),
        (
            "create_stack",
            {"TemplateBody": "Transform: AWS::Serverless-2016-10-31\nResources: {}"},
            "Transforms are not offered",
        ),
        (
            "create_stack",
            {"TemplateBody": "Resources: {A: {Type: x, Properties: {B: !Sub 'a ${C.Arn} ${!D}'}}}"},
            r"Unresolved resource dependencies \[C\] in the Resources block",
        ),
        (
            "create_stack",
            {"TemplateBody": "Resources: {A: {Type: x}}\nOutputs: {B: {Value: !GetAtt C.Arn}}"},
            r"Unresolved resource dependencies \[C\] in the Outputs block",
        ),
        (
            "create_stack",
            {"TemplateBody": "Resources: {A: {Type: x, DependsOn: B}, B: {Type: x, DependsOn: A}}"},
            "circular dependency between A, B",
        ),
        ("validate_template", {"TemplateURL": "file:///etc/passwd"}, "supported URL"),
        ("describe_stack_events", {"StackName": "none"}, "Stack with id none does not exist"),
    ],
)
def test_what_is_not_offered_or_not_valid_is_refused_in_the_protocols_form(
    client: Any, operation: str, request_: dict[str, Any], reason: str
) -> None:
    if operation == "create_stack":
        request_ = {"StackName": "refused", "TemplateBody": TEMPLATE, **request_}
    if operation == "signal_resource":
        request_ = {"StackName": "none", "LogicalResourceId": "A", **request_}
    with pytest.raises(ClientError) as caught:
        getattr(client, operation)(**request_)
    error = caught.value.response
    assert error["Error"]["Code"] == "ValidationError" and re.search(reason, str(caught.value))
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 400
