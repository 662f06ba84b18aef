"""The grader as a Lambda function: its package, its template, and what its roles may do."""

from __future__ import annotations

import hashlib
import io
import zipfile
from typing import Any

from base_stack import ACCOUNT, PSEUDO, REGION
from grader_jobs import EXACT_GRADER

from cloudft.aws.stack import Stack
from cloudft.backends.aws_base.grader_package import HANDLERS, pack_grader
from cloudft.endpoint.iam.policies import ALLOWED, AccessRequest, evaluate_policies
from cloudft.infra import grader_stack
from cloudft.infra import template as templates
from cloudft.infra.intrinsics import CreatedResource, TemplateScope

FUNCTION = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:grader"
LOG = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/cloudft/team-grader/grader:*"
JUDGE = f"arn:aws:bedrock:{REGION}::foundation-model/amazon.nova-pro-v1:0"
TEMPLATE = templates.parse_template(templates.load_template_text("grader"))
GIVEN = {
    "DataBucketName": "data",
    "BedrockRoleArn": f"arn:aws:iam::{ACCOUNT}:role/bedrock",
    "SageMakerRoleArn": f"arn:aws:iam::{ACCOUNT}:role/sagemaker",
    "CodeKey": "team/graders/team-grader/0.zip",
    "Handler": "grader.lambda_handler",
    "GraderSha256": "0" * 64,
}


def resolve(**given: str) -> dict[str, Any]:
    """Return every active resource of the template with its properties resolved."""
    created = {
        name: CreatedResource(f"name-of-{name}", {"Arn": FUNCTION if name == "Grader" else LOG})
        for name in TEMPLATE["Resources"]
    }
    scope = TemplateScope(TEMPLATE, {**GIVEN, **given}, PSEUDO, created, list)
    return {
        name: scope.resolve(resource["Properties"])
        for name, resource in scope.active_resources().items()
    }


def test_the_package_is_the_file_itself_and_the_same_each_time() -> None:
    content = EXACT_GRADER.encode() + b"# \xe2\x82\xac\r\n"
    digest = hashlib.sha256(content).hexdigest()
    packages = {platform: pack_grader(content, platform) for platform in sorted(HANDLERS)}
    for platform, package in packages.items():
        assert package == pack_grader(content, platform) and package.grader_sha256 == digest
        with zipfile.ZipFile(io.BytesIO(package.content)) as archive:
            assert archive.read("grader.py") == content
            module = f"{package.handler.partition('.')[0]}.py"
            assert set(archive.namelist()) == {"grader.py", module}
    assert len({package.sha256 for package in packages.values()}) == 2, "one adapter for SageMaker"


def test_the_function_is_what_the_job_file_says() -> None:
    function = resolve(TimeoutSeconds="900", MemoryMb="1024")["Grader"]
    assert (function["Timeout"], function["MemorySize"]) == ("900", "1024")
    assert function["FunctionName"] == "cloudft-grader-1"
    assert {"Key": "cloudft:grader-sha256", "Value": "0" * 64} in function["Tags"]
    assert function["Code"] == {"S3Bucket": "data", "S3Key": GIVEN["CodeKey"]}
    name = resolve(Platform="sagemaker-nova")["Grader"]["FunctionName"]
    assert "SageMaker" in name and len(name.replace("-1", "-" + "0" * 36)) <= 64


def decide(statements: list[dict[str, Any]], action: str, resource: str) -> str:
    return evaluate_policies(statements, AccessRequest(action, resource, {}))


def test_the_roles_may_invoke_the_function_and_it_may_log_and_ask_its_judges() -> None:
    plain, judged = resolve(), resolve(JudgeModelArns=JUDGE)
    for role in ("BedrockRoleGrader", "SageMakerRoleGrader"):
        statements = plain[role]["PolicyDocument"]["Statement"]
        assert decide(statements, "lambda:InvokeFunction", FUNCTION) == ALLOWED
        assert decide(statements, "lambda:InvokeFunction", f"{FUNCTION}-2") != ALLOWED
        assert decide(statements, "lambda:UpdateFunctionCode", FUNCTION) != ALLOWED
    [policy] = plain["GraderRole"]["Policies"]
    own = policy["PolicyDocument"]["Statement"]
    assert decide(own, "logs:PutLogEvents", LOG) == ALLOWED
    assert decide(own, "bedrock:InvokeModel", JUDGE) != ALLOWED
    assert decide(own, "s3:GetObject", "arn:aws:s3:::data/x") != ALLOWED
    assert "GraderRoleJudges" not in plain
    judges = judged["GraderRoleJudges"]["PolicyDocument"]["Statement"]
    assert decide(judges, "bedrock:InvokeModel", JUDGE) == ALLOWED
    assert decide(judges, "bedrock:InvokeModel", f"{JUDGE}x") != ALLOWED


def test_packages_are_removed_from_the_stack_s_own_folder_alone() -> None:
    class Never:
        def call(self, *_: object, **__: object) -> None:
            raise AssertionError("nothing may be listed")

    parameters = {"CodeKey": "team/data/0.zip", "DataBucketName": "data"}
    stack = Stack(
        "team-grader",
        PSEUDO["AWS::StackId"],
        "CREATE_COMPLETE",
        None,
        {},
        parameters,
        {},
        False,
        "",
    )
    assert grader_stack.remove_packages(Never(), stack) == 0  # type: ignore[arg-type]
