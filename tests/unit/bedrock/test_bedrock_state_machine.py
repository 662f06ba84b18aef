"""Jobs that a state machine creates: the words of its executions, and their names."""

from __future__ import annotations

from pathlib import Path

from job_files import write_job_file

from cloudft.aws.request_validation import load_service_model
from cloudft.backends.aws_base.api_call import ApiCall, AwsRequest
from cloudft.backends.bedrock import preflight, state_machine
from cloudft.backends.bedrock.caller_policy import caller_policy
from cloudft.endpoint.iam.policies import AccessRequest, evaluate_policies
from cloudft.spec.load import load_job

ROLE = "arn:aws:iam::123456789012:role/bedrock"
MACHINE = "arn:aws:states:us-east-1:123456789012:stateMachine:team-jobs-machine"


def test_every_word_for_an_execution_is_known() -> None:
    assert set(load_service_model("stepfunctions").shape_for("ExecutionStatus").enum) == set(
        state_machine.EXECUTION_STATUSES
    )


def test_an_execution_is_found_by_the_plan_alone() -> None:
    parameters = {"stateMachineArn": MACHINE, "name": "a" * 32, "input": "{}"}
    start = ApiCall(service="stepfunctions", operation="start_execution", parameters=parameters)
    put = ApiCall(service="s3", operation="put_object", parameters={})
    arn = f"arn:aws:states:us-east-1:123456789012:execution:team-jobs-machine:{'a' * 32}"
    request = AwsRequest(hyper_parameters={}, place={}, machine=[put, start])
    assert state_machine.execution_arn(request) == arn
    assert state_machine.execution_arn(AwsRequest(hyper_parameters={}, place={})) is None


def test_the_least_policy_of_who_submits_by_the_stack_starts_the_machine_and_makes_nothing(
    tmp_path: Path,
) -> None:
    section = {
        "region": "us-east-1",
        "role_arn": ROLE,
        "s3_uri": "s3://some-bucket/team",
        "via_stack": True,
        "machine_arn": MACHINE,
    }
    path = write_job_file(tmp_path, Path("titan-text-express"), bedrock=section)
    staged = preflight.with_placeholder_data(load_job(path))
    put, start = state_machine.api_calls(staged)
    found = caller_policy(staged)["Statement"]

    def may(action: str, resource: str) -> bool:
        return evaluate_policies(found, AccessRequest(action, resource, {})) == "allowed"

    assert may("s3:PutObject", f"arn:aws:s3:::some-bucket/{put.parameters['Key']}")
    assert may("states:StartExecution", start.parameters["stateMachineArn"])
    planned = AwsRequest(hyper_parameters={}, place={}, machine=[put, start])
    assert may("states:DescribeExecution", str(state_machine.execution_arn(planned)))
    job = "arn:aws:bedrock:us-east-1:123456789012:model-customization-job/x"
    assert may("bedrock:GetModelCustomizationJob", job)
    assert not may("bedrock:CreateModelCustomizationJob", job)
    assert not may("iam:PassRole", section["role_arn"])


def test_the_least_policy_names_every_file_of_the_plan(tmp_path: Path) -> None:
    section = {"region": "us-east-1", "role_arn": ROLE, "s3_uri": "s3://some-bucket/team"}
    model = Path("titan-text-express")
    path = write_job_file(tmp_path, model, bedrock=section, data={"validation": 0.2})
    found = caller_policy(preflight.with_placeholder_data(load_job(path)))["Statement"]
    [staged] = [one["Resource"] for one in found if one["Sid"] == "StageAndFetch"]
    data = {resource.rpartition("/")[2] for resource in staged if "/data/" in resource}
    assert data == {"train.jsonl", "validation.jsonl"}
