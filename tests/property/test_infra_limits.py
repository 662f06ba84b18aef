"""The limits of IAM, CloudFormation and the rest, for every stack name, Region and option."""

from __future__ import annotations

import functools
import json
import string
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import boto3
from base_stack import ALL_OPTIONS, BASE
from hypothesis import given, settings
from hypothesis import strategies as st

from cloudft.infra import template as templates
from cloudft.infra.intrinsics import CreatedResource, TemplateScope

ACCOUNT = "123456789012"
TEMPLATES = {
    name: templates.parse_template(templates.load_template_text(name))
    for name in templates.list_templates()
}
LONGEST = {"AWS::S3::Bucket": 63, "AWS::IAM::Role": 64, "AWS::IAM::ManagedPolicy": 128}
"""Characters of the names that CloudFormation makes."""
LIMITS = {
    ("AWS::IAM::ManagedPolicy", "PolicyDocument"): 6144,
    ("AWS::IAM::ManagedPolicy", "Description"): 1000,
    ("AWS::IAM::Role", "AssumeRolePolicyDocument"): 2048,
    ("AWS::IAM::Role", "Description"): 1000,
    ("AWS::IAM::RolePolicy", "PolicyName"): 128,
    ("AWS::KMS::Key", "KeyPolicy"): 32_768,
    ("AWS::KMS::Key", "Description"): 8192,
    ("AWS::S3::BucketPolicy", "PolicyDocument"): 20_480,
    ("AWS::SNS::TopicPolicy", "PolicyDocument"): 30_720,
    ("AWS::EC2::VPCEndpoint", "PolicyDocument"): 20_480,
    ("AWS::EC2::SecurityGroup", "GroupDescription"): 255,
    ("AWS::Events::Rule", "EventPattern"): 2048,
    ("AWS::Events::Rule", "Description"): 512,
    ("AWS::Lambda::Function", "Environment"): 4096,
    ("AWS::Lambda::Function", "FunctionName"): 64,
    ("AWS::Logs::LogGroup", "LogGroupName"): 512,
    ("AWS::Logs::ResourcePolicy", "PolicyDocument"): 5120,
    ("AWS::Logs::ResourcePolicy", "PolicyName"): 255,
    ("AWS::StepFunctions::StateMachine", "StateMachineName"): 80,
    ("AWS::StepFunctions::StateMachine", "Definition"): 1_048_576,
}
"""Characters of a property, by the services' own pages of quotas and API references."""
INLINE_MAX, MANAGED_MAX, BUDGET_NAME_MAX, TAG_MAX = 10_240, 10, 100, 256


@functools.cache
def regions() -> list[tuple[str, str]]:
    """Each partition with each of its Regions, as botocore knows them; the longest name last."""
    session = boto3.Session()
    found = [
        (partition, region)
        for partition in session.get_available_partitions()
        for region in session.get_available_regions("iam", partition)
        or session.get_available_regions("s3", partition)
    ]
    found += [("aws", region) for region in session.get_available_regions("bedrock", "aws")]
    return sorted({*found, ("aws-us-gov", "us-gov-west-1")}, key=lambda pair: len(pair[1]))


NAMES = st.one_of(
    st.builds(
        lambda first, rest: first + rest,
        st.sampled_from(string.ascii_letters),
        st.text(string.ascii_letters + string.digits + "-", max_size=127),
    ),
    st.sampled_from(["x" * 21, "x" * 30, "x" * 128]),
)
YES = st.sampled_from(["yes", "no"])


def of_length(text: str, most: int) -> st.SearchStrategy[str]:
    """Nothing, a short one or the longest there is."""
    return st.sampled_from(["", text, text + "x" * (most - len(text))])


def base_options(partition: str, region: str) -> st.SearchStrategy[dict[str, str]]:
    arn = f"arn:{partition}:lambda:{region}:{ACCOUNT}:function:"
    teacher = f"arn:{partition}:bedrock:{region}::foundation-model/amazon.nova-pro-v1:0,"
    return st.fixed_dictionaries(
        {
            "Prefix": st.sampled_from(["p", "cloudft", "p" * 63]),
            "WithVpc": st.just("yes"),
            "WithInterfaceEndpoints": YES,
            "NotifyEmail": st.sampled_from(["", "team@example.com"]),
            "MonthlyBudgetUsd": st.sampled_from(["0", "1000000"]),
            "TeacherModelArns": st.sampled_from(["", (teacher * 60)[:4095].rstrip(",")]),
            "GraderFunctionArn": of_length(arn + "x", len(arn) + 170),
            "PermissionsBoundaryArn": of_length(f"arn:{partition}:iam::{ACCOUNT}:policy/x", 512),
            "GitHubRepository": st.sampled_from(["", f"{'o' * 39}/{'r' * 100}"]),
            "GitHubEnvironment": st.sampled_from(["cloudft", "e" * 100]),
        }
    )


def jobs_options(partition: str, region: str) -> st.SearchStrategy[dict[str, str]]:
    role = f"arn:{partition}:iam::{ACCOUNT}:role/"
    return st.fixed_dictionaries(
        {
            "DataBucketName": st.just("d" * 63),
            "OutputBucketName": st.just("o" * 63),
            "Prefix": st.sampled_from(["cloudft", "p" * 63]),
            "KeyArn": st.just(f"arn:{partition}:kms:{region}:{ACCOUNT}:key/{'0' * 36}"),
            "BedrockRoleArn": st.just(role + "r" * 64),
            "JobTopicArn": st.just(f"arn:{partition}:sns:{region}:{ACCOUNT}:{'t' * 256}"),
            "CiRoleArn": st.sampled_from(["", role + "r" * 64]),
            "Afterwards": st.sampled_from(["nothing", "deploy"]),
            "ScheduleExpression": st.sampled_from(["", "rate(1 day)"]),
            "ScheduledPlan": st.just("p" * 128),
        }
    )


def grader_options(partition: str, region: str) -> st.SearchStrategy[dict[str, str]]:
    role = f"arn:{partition}:iam::{ACCOUNT}:role/"
    return st.fixed_dictionaries(
        {
            "DataBucketName": st.just("d" * 63),
            "BedrockRoleArn": st.just(role + "r" * 64),
            "SageMakerRoleArn": st.just(role + "s" * 64),
            "CodeKey": st.just("k" * 1024),
            "Handler": st.just(f"{'m' * 64}.{'f' * 64}"),
            "GraderSha256": st.just("0" * 64),
            "Platform": st.sampled_from(["bedrock", "sagemaker-nova", "sagemaker-open-weight"]),
            "JudgeModelArns": st.sampled_from(["", f"arn:{partition}:bedrock:{region}::x"]),
        }
    )


def there(
    template: Mapping[str, Any], partition: str, region: str, stack: str
) -> dict[str, CreatedResource]:
    """The resources under the longest names that CloudFormation gives."""
    found = {}
    for name, reported in template["Resources"].items():
        most = LONGEST.get(reported["Type"], 128)
        physical = f"{stack[:24]}-{name[:24]}-{'A' * 128}"[:most].lower()
        service = reported["Type"].split("::")[1].lower()
        arn = f"arn:{partition}:{service}:{region}:{ACCOUNT}:{physical}"
        if reported["Type"] == "AWS::S3::Bucket":
            arn = f"arn:{partition}:s3:::{physical}"
        ref = (
            arn
            if reported["Type"].endswith(("StateMachine", "ManagedPolicy", "Topic"))
            else physical
        )
        attributes = {"Arn": arn, "Name": physical, "CidrBlock": "10.87.0.0/24"}
        found[name] = CreatedResource(ref, attributes)
    return found


def pseudo_of(partition: str, region: str, name: str) -> dict[str, str]:
    """The pseudo parameters of a stack."""
    stack = f"arn:{partition}:cloudformation:{region}:{ACCOUNT}:stack/{name}/{'0' * 36}"
    return {
        "AWS::AccountId": ACCOUNT,
        "AWS::Partition": partition,
        "AWS::Region": region,
        "AWS::StackId": stack,
        "AWS::StackName": name,
    }


def size(value: Any) -> int:
    """Characters as a service counts them: IAM leaves white space out."""
    if isinstance(value, str):
        return len(value)
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def broken(scope: TemplateScope) -> Iterator[str]:
    """Each limit that a template does not keep under the values of its scope."""
    inline: dict[str, int] = defaultdict(int)
    for name, reported in scope.active_resources().items():
        kind, properties = reported["Type"], scope.resolve(reported["Properties"])
        for key, most in LIMITS.items():
            if key[0] == kind and (length := size(properties.get(key[1], ""))) > most:
                yield f"{name}.{key[1]}: {length} > {most}"
        role = scope.created[name].ref if kind == "AWS::IAM::Role" else properties.get("RoleName")
        policies = properties.get("Policies", ()) if kind == "AWS::IAM::Role" else [properties]
        if role and kind in ("AWS::IAM::Role", "AWS::IAM::RolePolicy"):
            inline[role] += sum(size(policy["PolicyDocument"]) for policy in policies)
        if len(properties.get("ManagedPolicyArns", ())) > MANAGED_MAX:
            yield f"{name}: too many managed policies"
        if kind == "AWS::Budgets::Budget":
            title = properties["Budget"]["BudgetName"]
            if len(title) > BUDGET_NAME_MAX or set(title) & {":", "\\"}:
                yield f"{name}: {title}"
        tags = properties.get("Tags", ())
        yield from (f"{name}: tag {t['Key']}" for t in tags if len(t["Value"]) > TAG_MAX)
    yield from (f"{role}: inline {n}" for role, n in inline.items() if n > INLINE_MAX)


@given(st.data())
@settings(max_examples=120)
def test_templates_keep_every_limit_for_any_name_region_and_options(data: st.DataObject) -> None:
    name = data.draw(NAMES)
    partition, region = data.draw(st.sampled_from([*regions(), regions()[-1]]))
    pseudo = pseudo_of(partition, region, name)
    options = {"base": base_options, "jobs": jobs_options, "grader": grader_options}
    for kind, template in TEMPLATES.items():
        values = data.draw(options[kind](partition, region))
        made = there(template, partition, region, name)
        scope = TemplateScope(template, values, pseudo, made, lambda: [f"{region}a", f"{region}b"])
        assert not list(templates.find_parameter_errors(template, values))
        assert not list(broken(scope))
        assert all(len(value) <= 4096 for value in values.values())
        scope.resolve_outputs()


def test_the_longest_there_is_keeps_every_limit() -> None:
    """Not drawn: the longest name in the longest Region with everything."""
    partition, region = regions()[-1]
    name = "x" * 128
    values = ALL_OPTIONS | {"Prefix": "p" * 63}
    pseudo = pseudo_of(partition, region, name)
    made = there(BASE, partition, region, name)
    assert not list(broken(TemplateScope(BASE, values, pseudo, made, lambda: ["a", "b"])))


def test_a_template_goes_with_the_request_and_has_room() -> None:
    for name, template in TEMPLATES.items():
        sent = templates.format_request_body(templates.load_template_text(name))
        assert len(sent.encode()) <= templates.MAX_BODY_BYTES - 1024, name
        assert templates.parse_template(sent) == template, "whatever its form, it says the same"
        assert len(template["Parameters"]) <= 200 and len(template["Outputs"]) <= 200
        assert len(template["Resources"]) <= 500
        assert len(template["Description"]) <= 1024
        for reported in template["Parameters"].values():
            assert len(reported["Description"]) <= 4000
        for reported in template["Outputs"].values():
            assert len(reported["Description"]) <= 1024
